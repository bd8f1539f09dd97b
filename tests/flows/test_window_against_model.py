"""The vectorised step gives what the plain model gives, for any history and any cut of it into frames."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from ringmain.flows.settings import WindowSettings
from ringmain.flows.steps.window import WindowStepSettings

from .model import Model
from .recording import Recording, fold, recut
from .reference.window import settings as any_settings

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND

common = settings(max_examples=80, derandomize=True, deadline=None)

SETTINGS = any_settings().map(
    lambda step: WindowSettings(
        to="out", **{name: getattr(step, name) for name in WindowStepSettings.__struct_fields__}
    )
)

VALUE = st.sampled_from([0.1, 0.2, 0.3, 1e16, -1e16, -0.0, 1.0, math.nan])
SERIES = st.integers(0, 7)


@st.composite
def histories(draw: st.DrawFn) -> Recording:
    """Frames of several devices: in order, out of order, repeated, changed, ahead, invalid; ticks; catalogue."""
    recording = Recording()
    now = START
    devices = draw(st.lists(st.sampled_from([None, "a", "b", "c"]), min_size=8, max_size=8))
    late_entries = draw(st.booleans())
    if not late_entries:
        recording.entries(dict(enumerate(devices)), now)
    past: list[tuple[int, int, float, int]] = []
    for step in range(draw(st.integers(1, 14))):
        now += draw(st.sampled_from([0, 0, 1, 1, 2, 7, 40])) * SECOND
        kind = draw(
            st.sampled_from(["sweep", "sweep", "sweep", "mixed", "mixed", "repeat", "tick", "entries"])
        )
        if kind == "tick":
            recording.tick(now)
        elif kind == "entries":
            recording.entries(dict(enumerate(devices[: step + 1])), now)
        elif kind == "sweep":
            ids = sorted(draw(st.sets(SERIES, min_size=1)))
            offset = draw(st.sampled_from([0, 0, 0, -1, 1, -12]))
            rows = [(number, now + offset * SECOND, draw(VALUE), 0) for number in ids]
            recording.readings(rows, now)
            past += rows
        elif kind == "mixed":
            rows = draw(
                st.lists(
                    st.tuples(
                        SERIES,
                        st.sampled_from([-60, -25, -11, -3, -2, -1, 0, 0, 1, 2, 9, 29, 30, 31, 10**6]).map(
                            lambda seconds, at=now: at + seconds * SECOND
                        ),
                        VALUE,
                        st.sampled_from([0, 0, 0, 1, 2, 3, 0x80]),
                    ),
                    min_size=1,
                    max_size=12,
                )
            )
            recording.readings(rows, now)
            past += rows
        elif past:
            again = draw(st.lists(st.sampled_from(past), min_size=1, max_size=6))
            changed = draw(st.booleans())
            rows = [(n, t, draw(VALUE) if changed else v, q) for n, t, v, q in again]
            recording.readings(rows, now)
            past += rows
    recording.tick(now + 100 * SECOND)
    recording.tick(now + 200 * SECOND)
    return recording


@common
@given(SETTINGS, histories(), st.sampled_from([1 << 20, 4, 0]), st.sampled_from([0, 0, 3600 * SECOND]))
def test_every_emitted_row_is_that_of_the_model_however_much_is_kept_in_memory(
    flow: WindowSettings, recording: Recording, recent: int, lead_ns: int
) -> None:
    model = Model(flow)
    for frame in recording.frames:
        model.step(frame)
    windows, late, step = fold(
        recording, flow, recent_rows=recent, recent_windows=recent, lead_ns=lead_ns, readings_max=3 + recent
    )
    assert sorted(map(repr, windows)) == sorted(map(repr, model.windows))
    assert sorted(map(repr, late)) == sorted(map(repr, model.side))
    assert step.counts.late == model.late_rows
    assert step.counts.ahead == model.ahead
    assert step.counts.gone == 0
    assert step.counts.windows + step.counts.revisions == len(windows)


@common
@given(SETTINGS, histories(), st.lists(st.integers(1, 5), max_size=40))
def test_the_same_rows_in_other_frames_give_the_same_rows_in_the_same_order(
    flow: WindowSettings, recording: Recording, cuts: list[int]
) -> None:
    other = recut(recording, cuts)
    one_by_one = recut(recording, [1] * 1000)
    expected = fold(recording, flow)[:2]
    for cut in (other, one_by_one):
        found = fold(cut, flow)[:2]
        assert repr(found) == repr(expected)
