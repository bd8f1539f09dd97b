"""The simulated disk really loses things, and never what was synced: a kit that loses nothing proves nothing."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from ringmain.log.files import FileSystem, publish_file, write_all
from ringmain.testing import PAGE_BYTES, SECTOR_BYTES, Faults, SimulatedClock, SimulatedDisk

HERE = Path("d")
FILE = HERE / "f"
SIXTEEN_SECTORS = 16 * SECTOR_BYTES


def _written(disk: SimulatedDisk, path: Path, data: bytes, *, synced: bool = True) -> int:
    handle = disk.create(path)
    write_all(disk, handle, [data], 0)
    if synced:
        disk.fdatasync(handle)
        disk.sync_directory(path.parent)
    return handle


def _outcomes(disk: SimulatedDisk, draws: int = 300) -> set[bytes | None]:
    """What the file holds after many power cuts; None: it is not there."""
    rng = random.Random(7)
    return {disk.after_power_cut(rng).contents().get(FILE) for _ in range(draws)}


def _sectors(data: bytes) -> list[int]:
    """The first byte of each sector."""
    assert all(len(set(data[at : at + SECTOR_BYTES])) == 1 for at in range(0, len(data), SECTOR_BYTES))
    return list(data[::SECTOR_BYTES])


def test_what_was_synced_survives_every_power_cut() -> None:
    disk = SimulatedDisk()
    _written(disk, FILE, b"a" * 5_000)
    assert _outcomes(disk) == {b"a" * 5_000}


def test_an_unsynced_write_is_lost_kept_torn_at_sectors_and_reordered() -> None:
    disk = SimulatedDisk()
    handle = _written(disk, FILE, b"a" * SIXTEEN_SECTORS)
    disk.pwritev(handle, [b"b" * SIXTEEN_SECTORS], 0)
    found = {bytes(_sectors(one)) for one in _outcomes(disk) if one is not None}
    assert b"a" * 16 in found, "lost"
    assert b"b" * 16 in found, "kept"
    assert any(one.startswith(b"b") and one.endswith(b"a") for one in found), "the beginning only"
    assert any(one.startswith(b"a") and one.endswith(b"b") for one in found), "the end only"
    assert any(one.count(b"ab") > 2 for one in found), "torn in between"
    pages = SIXTEEN_SECTORS // PAGE_BYTES
    whole_pages = [one for one in found if all(len(set(one[p * 8 : p * 8 + 8])) == 1 for p in range(pages))]
    assert len(whole_pages) > 2, "whole pages come and stay out as well"


def test_a_file_that_grew_may_have_any_length_and_zeros_where_nothing_arrived() -> None:
    disk = SimulatedDisk()
    handle = _written(disk, FILE, b"a" * SECTOR_BYTES)
    disk.pwritev(handle, [b"b" * (3 * SECTOR_BYTES)], SECTOR_BYTES)
    found = _outcomes(disk)
    lengths = {len(one) for one in found if one is not None}
    assert {SECTOR_BYTES, 4 * SECTOR_BYTES} < lengths
    assert any(one is not None and one[SECTOR_BYTES:].startswith(bytes(SECTOR_BYTES)) for one in found)
    assert all(one is not None and one.startswith(b"a" * SECTOR_BYTES) for one in found)


def test_a_sector_written_twice_may_hold_what_it_held_in_between() -> None:
    disk = SimulatedDisk()
    handle = _written(disk, FILE, b"a" * SECTOR_BYTES)
    disk.pwritev(handle, [b"b" * SECTOR_BYTES], 0)
    disk.pwritev(handle, [b"c" * SECTOR_BYTES], 0)
    assert {one and one[:1] for one in _outcomes(disk)} == {b"a", b"b", b"c"}


def test_a_file_cut_to_nothing_may_still_hold_its_old_bytes() -> None:
    disk = SimulatedDisk()
    _written(disk, FILE, b"a" * 100)
    disk.create(FILE)
    assert {b"", b"a" * 100} <= _outcomes(disk)


def test_a_new_name_is_forgotten_unless_its_directory_was_synced() -> None:
    disk = SimulatedDisk()
    handle = _written(disk, FILE, b"a", synced=False)
    disk.fdatasync(handle)
    assert _outcomes(disk) == {None, b"a"}, "the bytes are certain, the name is not"
    disk.sync_directory(HERE)
    assert _outcomes(disk) == {b"a"}


def test_a_rename_is_forgotten_unless_its_directory_was_synced() -> None:
    disk = SimulatedDisk()
    _written(disk, FILE, b"old")
    _written(disk, HERE / "new", b"new")
    disk.rename(HERE / "new", FILE)
    assert disk.contents() == {FILE: b"new"}
    images = [disk.after_power_cut().contents() for _ in range(100)]
    assert {FILE: b"old", HERE / "new": b"new"} in images
    assert {FILE: b"new"} in images
    assert all(image[FILE] in (b"old", b"new") for image in images), "one of them is always there"
    disk.sync_directory(HERE)
    assert _outcomes(disk) == {b"new"}


def test_a_removal_is_forgotten_unless_its_directory_was_synced() -> None:
    disk = SimulatedDisk()
    _written(disk, FILE, b"a")
    handle = disk.open_existing(FILE)
    disk.remove(FILE)
    assert disk.pread(handle, 10, 0) == b"a", "whoever has it open keeps it"
    assert _outcomes(disk) == {None, b"a"}
    disk.sync_directory(HERE)
    assert _outcomes(disk) == {None}


def test_a_sync_of_one_directory_does_not_cover_another() -> None:
    disk = SimulatedDisk()
    _written(disk, FILE, b"a", synced=False)
    disk.sync_directory(Path("elsewhere"))
    assert None in _outcomes(disk)


def test_a_published_file_is_always_the_old_or_the_new_one() -> None:
    disk = SimulatedDisk()
    publish_file(disk, FILE, [b"old" * 1000])
    seen: set[bytes | None] = set()
    disk.before_call = lambda name, path: seen.update(_outcomes(disk, 20))
    publish_file(disk, FILE, [b"new" * 1000])
    assert seen == {b"old" * 1000, b"new" * 1000}


def test_after_a_failed_sync_the_next_one_succeeds_and_the_bytes_are_lost_all_the_same() -> None:
    lost = 0
    for seed in range(20):
        disk = SimulatedDisk(seed=seed)
        handle = _written(disk, FILE, b"a" * SIXTEEN_SECTORS)
        disk.pwritev(handle, [b"b" * SIXTEEN_SECTORS], 0)
        disk.fail("sync", nth=0)
        with pytest.raises(OSError, match="injected"):
            disk.fdatasync(handle)
        disk.fdatasync(handle)
        assert disk.pread(handle, SIXTEEN_SECTORS, 0) == b"b" * SIXTEEN_SECTORS, "the page cache shows it"
        (after,) = _outcomes(disk, 20)
        assert after is not None
        lost += b"a" in after
        # what is written again and synced is there again
        disk.pwritev(handle, [b"c" * SIXTEEN_SECTORS], 0)
        disk.fdatasync(handle)
        assert _outcomes(disk, 20) == {b"c" * SIXTEEN_SECTORS}
    assert lost > 15


def test_a_page_whose_sync_failed_may_be_read_from_the_medium_by_the_next_process() -> None:
    seen = set()
    for seed in range(20):
        disk = SimulatedDisk(seed=seed)
        handle = _written(disk, FILE, b"a" * SECTOR_BYTES)
        disk.pwritev(handle, [b"b" * SECTOR_BYTES], 0)
        disk.fail("sync", nth=0)
        with pytest.raises(OSError, match="injected"):
            disk.fdatasync(handle)
        seen.add(disk.kill().contents()[FILE][:1])
    assert seen == {b"a", b"b"}


def test_a_kill_keeps_what_was_written_and_makes_nothing_durable() -> None:
    disk = SimulatedDisk()
    _written(disk, FILE, b"a", synced=False)
    lock = disk.lock(HERE / "lock")
    with pytest.raises(BlockingIOError):
        disk.lock(HERE / "lock")
    after = disk.kill()
    assert after.contents()[FILE] == b"a"
    assert after.lock(HERE / "lock") != lock, "the lock went with the process"
    assert None in _outcomes(after)
    with pytest.raises(OSError, match="off"):
        disk.create(FILE)


def test_the_same_seed_gives_the_same_disk() -> None:
    def history(seed: int) -> list[dict[Path, bytes]]:
        disk = SimulatedDisk(seed=seed)
        disk.fail_some(0.1)
        images = []
        for number in range(60):
            try:
                handle = _written(
                    disk, HERE / f"{number % 5}", bytes([number]) * 3_000, synced=number % 3 == 0
                )
                disk.close(handle)
            except OSError:
                continue
            images.append(disk.after_power_cut().contents())
        return images

    assert history(1) == history(1)
    assert history(1) != history(2)


CALLS: dict[str, Callable[[FileSystem, int], object]] = {
    "create": lambda fs, handle: fs.create(HERE / "g"),
    "open": lambda fs, handle: fs.open_existing(FILE),
    "read": lambda fs, handle: fs.pread(handle, 1, 0),
    "write": lambda fs, handle: fs.pwritev(handle, [b"x"], 0),
    "sync": lambda fs, handle: fs.fdatasync(handle),
    "rename": lambda fs, handle: fs.rename(FILE, HERE / "h"),
    "remove": lambda fs, handle: fs.remove(FILE),
    "sync_directory": lambda fs, handle: fs.sync_directory(HERE),
    "lock": lambda fs, handle: fs.lock(HERE / "lock"),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_the_nth_call_fails_with_the_error_asked_for_and_the_others_do_not(call: str, error: int) -> None:
    for nth in range(3):
        disk = SimulatedDisk()
        handle = _written(disk, FILE, b"a")
        disk.fail(call, error, nth=nth)
        failed = []
        for number in range(5):
            try:
                CALLS[call](disk, handle)
            except FileNotFoundError:
                continue  # renamed or removed before
            except BlockingIOError:
                continue  # locked before
            except OSError as raised:
                failed.append((number, raised.errno))
        assert failed == [(nth, error)]
        assert disk.calls[call] >= 5


def test_a_call_that_the_kit_does_not_know_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected a call out of create, lock, .*, found 'fsync'"):
        Faults().fail("fsync")


def test_short_writes_are_short_and_a_full_disk_is_full() -> None:
    disk = SimulatedDisk(capacity_bytes=1_000)
    handle = disk.create(FILE)
    disk.short_writes = True
    assert disk.pwritev(handle, [b"a" * 100], 0) == 50
    disk.short_writes = False
    assert disk.pwritev(handle, [b"a" * 2_000], 0) == 1_000
    with pytest.raises(OSError, match="full") as full:
        disk.pwritev(handle, [b"a"], 1_000)
    assert full.value.errno == errno.ENOSPC
    assert disk.pwritev(handle, [b"b" * 10], 100) == 10, "what is there already may be written over"
    disk.remove(FILE)
    other = disk.create(HERE / "g")
    assert disk.pwritev(other, [b"a" * 10], 0) == 10, "removing makes room"


def test_reads_flip_bits_and_bad_blocks_cannot_be_read() -> None:
    disk = SimulatedDisk(seed=3)
    handle = _written(disk, FILE, bytes(3 * PAGE_BYTES))
    disk.flip_some_reads(0.5)
    answers = [disk.pread(handle, 1_000, 0) for _ in range(100)]
    wrong = [one for one in answers if any(one)]
    assert 20 < len(wrong) < 80
    assert all(sum(byte.bit_count() for byte in one) == 1 for one in wrong)
    disk.heal()
    assert not any(disk.pread(handle, 3 * PAGE_BYTES, 0)), "the medium holds what it held"
    disk.bad_blocks.add((FILE.name, 1))
    assert len(disk.pread(handle, PAGE_BYTES, 0)) == PAGE_BYTES
    with pytest.raises(OSError, match="injected"):
        disk.pread(handle, 2, PAGE_BYTES - 1)
    disk.heal()
    disk.flip(FILE, 5, 0x80)
    assert disk.pread(handle, 6, 0) == bytes(5) + b"\x80"


def test_hooks_see_each_call_before_it_does_anything() -> None:
    disk = SimulatedDisk()
    seen: list[tuple[str, bool]] = []
    disk.before_call = lambda name, path: seen.append((name, FILE in disk.contents()))
    disk.before("write", lambda: seen.append(("hook", True)))
    disk.close(_written(disk, FILE, b"a"))
    assert seen == [
        ("create", False),
        ("write", True),
        ("hook", True),
        ("sync", True),
        ("sync_directory", True),
    ]
    assert disk.trail == ["create f", "write f", "sync f", "sync_directory d"]


def test_a_clock_moves_only_when_the_test_says_so() -> None:
    clock = SimulatedClock(wall_ns=100, elapsed_ns=7)
    clock.pass_time(5)
    assert (clock.wall_ns(), clock.elapsed_ns()) == (105, 12)
    clock.step(50)
    assert (clock.wall_ns(), clock.elapsed_ns()) == (50, 12)
    clock.boot(0)
    assert (clock.wall_ns(), clock.elapsed_ns()) == (0, 0)
    with pytest.raises(ValueError, match="-1"):
        clock.pass_time(-1)
