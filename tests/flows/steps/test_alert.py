"""The step `alert`: hand-made cases with exact events, hostile input, and any history against the reference."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from ringmain.flows.steps.alert import AlertSettings
from tests.flows.reference import alert as reference
from tests.flows.steps.driving import Instant
from tests.flows.steps.ordered_inputs import agree, histories


@examples(max_examples=40, derandomize=True, deadline=None)
@given(
    step=reference.settings(),
    instants=histories(st.sampled_from([0.0, 0.4, 1.0, -1.0, 2.0, 100.0, 110.0, 121.0])),
    chance=st.randoms(use_true_random=False),
)
def test_it_is_as_the_reference_however_cut_and_restarted(
    step: AlertSettings, instants: list[Instant], chance: random.Random
) -> None:
    known = reference.KNOWN
    assert step.check() == ([], [])
    agree(step, reference.Reference(step, known), instants, chance, known=known, tail_s=30)
