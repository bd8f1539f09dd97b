"""Long campaigns: every step that needs order of time against its reference, in many more histories than `test_NAME.py`."""

from __future__ import annotations

import random
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from ringmain.flows.steps import counter, deadband, swinging_door, validate
from tests.flows.reference import counter as counter_reference
from tests.flows.reference import deadband as deadband_reference
from tests.flows.reference import fill as fill_reference
from tests.flows.reference import swinging_door as swinging_reference
from tests.flows.reference import validate as validate_reference
from tests.flows.steps.driving import Instant
from tests.flows.steps.ordered_inputs import agree, histories

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]

VALUES = st.one_of(
    st.integers(0, 30).map(float),
    st.sampled_from([0.0, 0.4, 0.5, -1.0, 90.0, 99.0, 100.0, 101.0, 110.0, 480.0, 990.0, 999.0, 5000.0]),
)
REFERENCES = {
    "counter": (counter_reference, counter),
    "deadband": (deadband_reference, deadband),
    "fill": (fill_reference, None),
    "swinging-door": (swinging_reference, swinging_door),
    "validate": (validate_reference, validate),
}


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("name", REFERENCES)
def test_a_step_is_as_its_reference_in_many_histories(
    name: str, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, module = REFERENCES[name]
    if module is not None:
        monkeypatch.setattr(module, "FAST", fast)
    many(reference)


def many(reference: ModuleType) -> None:
    @examples(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
    @given(step=reference.settings(), instants=histories(VALUES), chance=st.randoms(use_true_random=False))
    def compare(step: object, instants: list[Instant], chance: random.Random) -> None:
        agree(step, reference.Reference(step, {}), instants, chance, tail_s=35)  # type: ignore[arg-type]

    compare()
