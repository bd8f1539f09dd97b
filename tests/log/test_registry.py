"""The registry of series: dense ids, bounded for each source, never reused, durable before the first reading."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from ringmain.log import open_log, open_reader
from ringmain.log.catalogue import SeriesRegistry
from ringmain.log.interface import Batch, LogFullError
from ringmain.log.journal import Journal
from ringmain.model.catalogue import SeriesAttributes
from ringmain.testing import FaultyFiles
from tests.log.batches import readings
from tests.promises import Fault, Part, promise

WATT = SeriesAttributes(unit="W", quantity="power", device="m1")


def _append(log: Journal, registry: SeriesRegistry, sequence: int, claim: object) -> None:
    entries, token = registry.unsaved()
    batches = [Batch("catalogue", entry) for entry in entries]
    log.append([*batches, Batch("readings", readings(1))], claim=claim, sequence=sequence)  # type: ignore[arg-type]
    registry.saved(token)


def test_ids_are_dense_and_known_keys_keep_theirs(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    registry = SeriesRegistry(log)
    assert [registry.register("s", f"k{n}", WATT) for n in range(5)] == [0, 1, 2, 3, 4]
    assert registry.register("other", "k3", WATT) == 3
    assert len(registry.catalogue) == 0, "nothing is durable yet"
    claim = log.claim("s")
    _append(log, registry, 0, claim)
    assert registry.catalogue is log.catalogue()
    assert len(registry.catalogue) == 5
    assert registry.unsaved()[0] == []
    assert registry.register("s", "k4", WATT) == 4
    log.close()
    log = open_log(tmp_path)
    registry = SeriesRegistry(log)
    assert registry.register("s", "k2", WATT) == 2
    assert registry.register("s", "new", WATT) == 5
    assert log.catalogue().attributes_of(2).unit == "W"
    with open_reader(tmp_path) as reader:
        assert len(reader.catalogue()) == 5
    log.close()


@promise(
    Fault.DISK_FULL, Part.CATALOGUE, "Entries of a refused append travel again with the next; ids stay dense."
)
def test_an_entry_whose_append_failed_travels_again(tmp_path: Path) -> None:
    files = FaultyFiles()
    log = open_log(tmp_path, fs=files)
    registry = SeriesRegistry(log)
    claim = log.claim("s")
    assert registry.register("s", "a", WATT) == 0
    files.space_bytes = 0
    with pytest.raises(LogFullError):
        _append(log, registry, 0, claim)
    assert registry.register("s", "b", WATT) == 1
    assert registry.register("s", "a", WATT) == 0
    files.heal()
    _append(log, registry, 0, claim)
    assert [log.catalogue().id_of(key) for key in ("a", "b")] == [0, 1]
    log.close()


@promise(
    Fault.BIT_FLIP,
    Part.CATALOGUE,
    "A damaged entry is missing until its source sends it again; its id is never given to another series.",
)
def test_an_id_whose_entry_was_lost_is_not_given_again(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    registry = SeriesRegistry(log)
    claim = log.claim("s")
    registry.register("s", "a", WATT)
    before = log.end()
    _append(log, registry, 0, claim)
    (entry,) = log.read("catalogue", after=before)
    log.append([Batch("readings", readings(1))], claim=claim, sequence=1)
    log.close()
    segment = tmp_path / "0000000001.seg"
    raw = bytearray(segment.read_bytes())
    at = raw.find(b"power")
    assert at > 0
    raw[at] ^= 1
    segment.write_bytes(raw)
    for checkpoint in tmp_path.glob("*.ckp"):
        checkpoint.unlink()
    log = open_log(tmp_path)
    registry = SeriesRegistry(log)
    assert entry.row_count == 1
    assert registry.register("s", "other", WATT) == 1
    claim = log.claim("s")
    _append(log, registry, 0, claim)
    assert log.catalogue().id_of("other") == 1
    log.close()


def test_a_source_brings_no_more_than_its_limit(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    registry = SeriesRegistry(log, max_series=3)
    assert [registry.register("s", f"k{n}", WATT) for n in range(5)] == [0, 1, 2, -1, -1]
    assert registry.register("t", "k9", WATT) == 3
    _append(log, registry, 0, log.claim("s"))
    assert registry.register("s", "more", WATT) == -1
    assert registry.register("s", "k1", WATT) == 1
    log.close()


def test_many_series_at_once_are_appended_in_pieces_first(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    registry = SeriesRegistry(log)
    for number in range(30_000):
        assert registry.register("s", f"municipal/district-7/meter-{number:06}/power", WATT) == number
    claim = log.claim("s")
    _append(log, registry, 0, claim)
    assert len(log.catalogue()) == 30_000
    frames = list(log.read(["catalogue", "readings"]))
    assert len(frames) > 3
    assert frames[-1].stream == "readings"
    log.close()


def test_threads_that_register_the_same_keys_agree(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    registry = SeriesRegistry(log)
    results: list[list[int]] = []

    def work() -> None:
        results.append([registry.register("s", f"k{n % 500}", WATT) for n in range(2_000)])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert all(result == results[0] for result in results)
    assert sorted(set(results[0])) == list(range(500))
    log.close()


def test_unit_and_quantity_never_change_and_the_rest_may(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    registry = SeriesRegistry(log)
    claim = log.claim("s")
    registry.register("s", "a", SeriesAttributes(unit="W"))
    assert registry.describe("s", "a", SeriesAttributes(place="north", quantity="power")) == 0
    with pytest.raises(ValueError, match="never changes"):
        registry.describe("s", "a", SeriesAttributes(unit="kW"))
    _append(log, registry, 0, claim)
    with pytest.raises(ValueError, match="never changes"):
        registry.describe("s", "a", SeriesAttributes(quantity="energy"))
    assert registry.describe("s", "a", SeriesAttributes(owner="city", external={"OBIS": "1.7.0"})) == 0
    _append(log, registry, 1, claim)
    attributes = log.catalogue().attributes_of(0)
    assert (attributes.unit, attributes.quantity, attributes.place, attributes.owner) == (
        "W",
        "power",
        "north",
        "city",
    )
    assert attributes.external == {"OBIS": "1.7.0"}
    log.close()


@pytest.mark.parametrize("key", ["", "x" * 2000, "a\nb", "\ud800"])
def test_keys_that_cannot_be_stored_are_refused(tmp_path: Path, key: str) -> None:
    log = open_log(tmp_path)
    with pytest.raises(ValueError, match="expected"):
        SeriesRegistry(log).register("s", key, WATT)
    log.close()
