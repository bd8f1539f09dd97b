"""Journals that earlier versions wrote are read for ever: exactly what is in them, and the log goes on behind it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ringmain.log import open_log, open_reader
from ringmain.log.check.scan import Form, can_compile
from ringmain.log.check.verify import verify
from ringmain.log.frames import VERSION
from ringmain.log.interface import Batch, ConflictError
from tests.log.golden.contents import describe
from tests.log.golden.make import digests, make, readings

GOLDEN = Path(__file__).parent / "golden"
JOURNALS = sorted(path for path in GOLDEN.glob("v*/*") if path.is_dir())
each = pytest.mark.parametrize("journal", JOURNALS, ids=lambda path: f"{path.parent.name}-{path.name}")


def _expected(journal: Path) -> dict[str, Any]:
    text = journal.with_suffix(".json").read_text(encoding="utf-8")
    contents: dict[str, Any] = json.loads(text)
    return contents


def test_every_version_has_its_journals() -> None:
    assert {path.parent.name for path in JOURNALS} == {f"v{number}" for number in range(1, VERSION + 1)}
    for journal in JOURNALS:
        assert sum(path.stat().st_size for path in journal.iterdir()) < 64 << 10


@each
def test_it_was_never_written_again(journal: Path) -> None:
    assert digests(journal) == _expected(journal)["files"]


@each
def test_it_holds_exactly_what_was_written_down(journal: Path) -> None:
    expected = _expected(journal)
    del expected["files"]
    assert json.loads(json.dumps(describe(journal))) == expected


def test_it_has_every_kind_of_frame_and_record() -> None:
    contents = _expected(GOLDEN / "v1" / "log")
    names = ("readings", "events", "deadletters", "readings.1m", "catalogue", "accounts", "ticks", "ledger")
    assert all(contents["frames"][name] for name in (*names, "conflicts"))
    groups = [group for segment in contents["segments"].values() for group in segment["groups"]]
    records = [record["type"] for group in groups for record in group["records"]]
    assert {"stream", "claim", "positions", "open", "clock"} == set(records)
    removed = _expected(GOLDEN / "v1" / "removed")
    more = [group for segment in removed["segments"].values() for group in segment["groups"]]
    assert "removed" in [record["type"] for group in more for record in group["records"]]
    assert {"conflict", "evicted"} <= {row["kind"] for row in removed["ledger"]}
    assert {group["flags"] for group in groups} == {0, 1, 2}
    assert {"idx", "seg", "ckp"} <= {name.rpartition(".")[2] for name in contents["files"]}
    assert len(contents["segments"]) >= 2


@each
@pytest.mark.parametrize("form", [one for one in Form if one != Form.COMPILED or can_compile()])
def test_it_is_sound(journal: Path, form: Form) -> None:
    report = verify(journal, form=form)
    assert [str(problem) for problem in report.problems] == []
    assert report.notes == []


def test_its_segments_alone_say_the_same(tmp_path: Path) -> None:
    journal = GOLDEN / "v1" / "log"
    for path in journal.glob("*.seg"):
        shutil.copy(path, tmp_path)
    found, expected = json.loads(json.dumps(describe(tmp_path))), _expected(journal)
    for part in ("streams", "frames", "positions", "catalogue", "ledger", "segments"):
        assert found[part] == expected[part], part


@each
def test_the_log_goes_on_behind_it(journal: Path, tmp_path: Path) -> None:
    copy = tmp_path / "log"
    shutil.copytree(journal, copy)
    expected = _expected(journal)
    last = expected["frames"]["readings"][-1]
    with open_log(copy) as log:
        claim = log.claim("source/field", epoch=8)
        flow = log.claim("flow/minute", epoch=0)
        assert flow.last_sequence == 2
        assert flow.positions == {"flow/minute": b"1"}
        batch = Batch("readings", readings(0, 77))
        if journal.name == "log":
            # the newest append of each epoch is still known: the same is a duplicate, another one a conflict
            assert claim.last_sequence == last["sequence"]
            with pytest.raises(ConflictError):
                log.append([batch], claim=claim, sequence=last["sequence"])
        appended = log.append([batch], claim=claim, sequence=100, positions={"source/field": b"100"})
        assert appended.position is not None
        assert appended.arrival_ns >= last["arrival_ns"]
    with open_reader(copy) as reader:
        frames = list(reader.read("readings"))
        assert [str(frame.position) for frame in frames[:-1]] == [
            frame["position"] for frame in expected["frames"]["readings"]
        ]
        assert frames[-1].cumulative_rows == last["cumulative_rows"] + 3
        assert frames[-1].rows.column("time").equals(readings(0, 77).column("time"))
        assert reader.positions()["source/field"] == b"100"
    assert [str(problem) for problem in verify(copy).problems] == []


def test_what_this_version_writes_is_what_its_journal_holds(tmp_path: Path) -> None:
    make(tmp_path)
    for name in ("log", "removed"):
        found = json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))
        expected = _expected(GOLDEN / f"v{VERSION}" / name)
        for part in ("streams", "frames", "positions", "catalogue", "ledger", "segments"):
            assert found[part] == expected[part], part
