"""The arithmetic of the books, and the verdict on the node's."""

from __future__ import annotations

import msgspec
import pytest

from ringmain.sim.compare import NodeCounts, compare, table
from ringmain.sim.tally import Kind, Tally, add


def some_tally() -> Tally:
    tally = Tally(series=5)
    for kind, count in zip(Kind, (10, 3, 2, 1, 2, 4, 1, 1, 0), strict=True):
        for _ in range(count):
            tally.acknowledged((int(kind), 2, 0, 1500))
    tally.acknowledged((int(Kind.MALFORMED), 0, 1, 0))
    tally.acknowledged((int(Kind.MALFORMED), 2, 1, 30))
    return tally


def right_counts(tally: Tally) -> NodeCounts:
    return NodeCounts(
        readings=tally.readings, milli=tally.milli, distinct=tally.distinct, ahead=tally.ahead,
        series=tally.series, letters=tally.letters, in_windows=tally.in_windows, revised=1,
    )  # fmt: skip


def test_repeats_count_as_readings_but_not_as_different_ones() -> None:
    tally = some_tally()
    assert tally.messages == 26
    assert tally.readings == 24 * 2 + 2
    assert tally.distinct == tally.readings - (3 + 2) * 2
    assert tally.ahead == 8
    assert tally.in_windows == tally.distinct - 8
    assert tally.letters == 2
    assert tally.milli == 24 * 1500 + 30


def test_the_tallies_of_processes_add_up_and_survive_json() -> None:
    one, other = some_tally(), some_tally()
    other.sent_again((0, 3, 1, 0))
    total = add([one, other])
    assert total.readings == 2 * one.readings
    assert total.letters == 2 * one.letters
    assert total.series == 10
    assert (total.resent, total.resent_readings, total.resent_letters) == (1, 3, 1)
    assert msgspec.json.decode(msgspec.json.encode(total), type=Tally) == total


def test_equal_counts_agree() -> None:
    tally = some_tally()
    lines = compare(tally, right_counts(tally), revisions_min=1)
    assert all(line.agrees for line in lines)
    assert "DIFFERS" not in table(lines)


@pytest.mark.parametrize("field", [f for f in NodeCounts.__struct_fields__ if f != "revised"])
@pytest.mark.parametrize("difference", [-1, 1])
def test_any_count_that_differs_by_one_is_named(field: str, difference: int) -> None:
    tally = some_tally()
    right = right_counts(tally)
    wrong = msgspec.structs.replace(right, **{field: getattr(right, field) + difference})
    differing = [line for line in compare(tally, wrong) if not line.agrees]
    assert [line.verdict for line in differing] == [f"DIFFERS by {difference:+d}"]
    # A count that is too small may still grow, one that is too large is the last word.
    assert [line.exceeded for line in differing] == [difference > 0]


def test_missing_revisions_and_unacknowledged_messages_are_named() -> None:
    tally = some_tally()
    counts = msgspec.structs.replace(right_counts(tally), revised=0)
    assert not compare(tally, counts, revisions_min=1)[-1].agrees
    tally.unacknowledged = 1
    assert [line.what for line in compare(tally, counts) if not line.agrees] == ["unacknowledged messages"]


def test_what_was_sent_again_may_be_stored_twice_and_no_more() -> None:
    tally = some_tally()
    tally.sent_again((0, 2, 0, 3000))
    right = right_counts(tally)
    twice = msgspec.structs.replace(right, readings=right.readings + 2, milli=0)
    assert all(line.agrees for line in compare(tally, twice))
    thrice = msgspec.structs.replace(right, readings=right.readings + 3)
    assert [line.what for line in compare(tally, thrice) if not line.agrees] == ["readings stored"]
    distinct = msgspec.structs.replace(right, distinct=right.distinct + 1)
    assert not all(line.agrees for line in compare(tally, distinct))
