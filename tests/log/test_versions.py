"""Every structure on disk has a version: a newer one, in a header whose CRC is right, is refused in one clear line."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from crc32c import crc32c

from ringmain.cli.main import main
from ringmain.flows.snapshot import Saved, Snapshots
from ringmain.log import open_log, open_reader
from ringmain.log.check.verify import verify
from ringmain.log.files import LocalFileSystem
from ringmain.log.frames import FRAME_HEADER_BYTES, GROUP_HEADER_BYTES, VERSION, NewerFormatError
from ringmain.log.interface import Position
from tests.log.batches import reading_batch

NEWER = VERSION + 1


def _fill(directory: Path) -> None:
    """Two sealed segments and an active one that was not closed by its writer's checkpoint."""
    with open_log(directory, segment_bytes=8192) as log:
        claim = log.claim("a")
        for number in range(20):
            log.append([reading_batch(40, value=number)], claim=claim, sequence=number)


def _stamp(path: Path, version_at: int, crc_at: int, start: int, size: int) -> None:
    """Put a newer version into a header of `size` bytes, and make its CRC right."""
    raw = bytearray(path.read_bytes())
    struct.pack_into("<H", raw, start + version_at, NEWER)
    struct.pack_into("<I", raw, start + crc_at, 0)
    struct.pack_into("<I", raw, start + crc_at, crc32c(bytes(raw[start : start + size])))
    path.write_bytes(raw)


def _segment(directory: Path) -> None:
    _stamp(max(directory.glob("*.seg")), 8, 12, 0, 64)


def _group(directory: Path) -> None:
    for path in directory.glob("*.ckp"):
        path.unlink()
    _stamp(directory / "0000000001.seg", 4, 12, 64, GROUP_HEADER_BYTES + FRAME_HEADER_BYTES)


def _state(directory: Path) -> None:
    _stamp(max(directory.glob("state-*.ckp")), 8, 12, 0, 64)


def _mark(directory: Path) -> None:
    _stamp(directory / "durable", 4, 12, 0, 64)


def _index(directory: Path) -> None:
    for path in directory.glob("*.idx"):
        _stamp(path, 8, 12, 0, 64)


def _read(directory: Path) -> None:
    with open_reader(directory) as reader:
        list(reader.read("readings"))


def _open(directory: Path) -> None:
    open_log(directory).close()


@pytest.mark.parametrize("change", [_segment, _group, _state, _mark, _index])
@pytest.mark.parametrize("use", [_open, _read, verify])
def test_a_newer_version_is_refused_in_one_line(
    tmp_path: Path, change: Callable[[Path], None], use: Callable[[Path], object]
) -> None:
    _fill(tmp_path)
    change(tmp_path)
    with pytest.raises(NewerFormatError, match=f"version {NEWER}.*up to version {VERSION}") as refused:
        use(tmp_path)
    assert "\n" not in str(refused.value)
    assert "open it with the Ringmain that wrote it, or a newer one" in str(refused.value)


def test_a_refused_log_is_left_as_it_was(tmp_path: Path) -> None:
    _fill(tmp_path)
    _segment(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != "lock"}
    with pytest.raises(NewerFormatError):
        open_log(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != "lock"} == before


def test_a_newer_snapshot_is_passed_over_in_one_line_and_verify_names_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _fill(tmp_path)
    snapshots = Snapshots(LocalFileSystem(), tmp_path / "snapshots", "minute")
    snapshots.save("definition", Saved(Position(1, 0, 1), 0, 0, 0, (), (), [{"names": b"[]"}]))
    assert len(snapshots.load("definition")) == 1
    (path,) = (tmp_path / "snapshots").iterdir()
    path.write_bytes(b"RMFLOW04" + path.read_bytes()[8:])
    assert snapshots.load("definition") == []
    assert "format version 4, this Ringmain reads version 3" in caplog.messages[-1]
    problem = next(one for one in verify(tmp_path).problems if one.where.startswith("snapshot"))
    assert "format version 4, this Ringmain reads up to version 3" in problem.reason


def test_every_command_refuses_a_newer_log_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    _fill(tmp_path / "data")
    _segment(tmp_path / "data")
    (tmp_path / "node.toml").write_text('[node]\nname = "x"\n')
    monkeypatch.chdir(tmp_path)
    for arguments, status in (
        (["run", "node.toml"], 1),
        (["log", "streams"], 1),
        (["sql", "select 1"], 1),
        (["log", "verify"], 2),
    ):
        monkeypatch.setattr("sys.argv", ["ringmain", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capfd.readouterr()
        assert (ended.value.code, printed.out) == (status, ""), arguments
        assert printed.err.count("\n") == 1, printed.err
        assert f"format version {NEWER}, this Ringmain reads up to version {VERSION}" in printed.err
