"""Any chain of steps over any history gives what its slow, row-by-row form gives, record for record.

However rows are cut into frames, and however often the chain is made anew out of a snapshot.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, seed
from hypothesis import settings as examples
from hypothesis import strategies as st

from ringmain.flows.step import StepSettings
from tests.flows.random_chains import chains, check, stories
from tests.flows.steps.driving import Instant, Others
from tests.soak import FLOWS_CODE, run_campaign

CASES = examples(
    max_examples=100,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
CAMPAIGN_CHAINS = 20_000


@CASES
@given(chains(), stories(), st.integers(0, 2**32))
def test_any_chain_gives_what_its_row_by_row_form_gives(
    steps: list[StepSettings], story: tuple[list[Instant], Others], number: int
) -> None:
    check(steps, story, number)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_any_chain_gives_what_its_row_by_row_form_gives_very_often(
    capsys: pytest.CaptureFixture[str],
) -> None:
    chains_of_item = 50

    def run(item: int) -> int:
        @seed(item)
        @examples(CASES, max_examples=chains_of_item, derandomize=False, database=None)
        @given(chains(), stories(), st.integers(0, 2**32))
        def campaign(steps: list[StepSettings], story: tuple[list[Instant], Others], number: int) -> None:
            check(steps, story, number)

        campaign()
        return chains_of_item

    told = run_campaign("random-chains", CAMPAIGN_CHAINS, run, "chains", FLOWS_CODE)
    with capsys.disabled():
        print(f"\n{told}")
