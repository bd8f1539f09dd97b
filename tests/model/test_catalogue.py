"""The series catalogue: dense ids, attributes, entries as the log keeps them, search, memory."""

import subprocess
import sys
import textwrap
import threading

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringmain.model.catalogue import MISSING, Catalogue, SeriesAttributes
from ringmain.model.schemas import SERIES

PLAIN = SeriesAttributes()


def utility() -> Catalogue:
    catalogue = Catalogue()
    catalogue.add(
        "leipzig-west/ss-07/feeder-3/p",
        "field",
        SeriesAttributes(
            "W", "power", "electricity", "ss-07", "Plagwitz", "Netz GmbH", {"OBIS": "1-0:1.7.0"}
        ),
    )
    catalogue.add("leipzig-west/ss-07/u", "field", SeriesAttributes("V", "voltage", "electricity", "ss-07"))
    catalogue.add("heat/ex-1/t", "heat", SeriesAttributes("K", "temperature", "heat", None, "Grünau"))
    return catalogue


def entry(series: int, key: str, **columns: str | None) -> dict[str, object]:
    return {"id": series, "key": key, **{name: columns.get(name) for name in SERIES.names[2:]}}


def entries(*rows: dict[str, object]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(list(rows), schema=SERIES)


def test_ids_are_dense_and_a_known_key_keeps_its_own() -> None:
    catalogue = utility()
    assert [catalogue.id_of(key) for key in catalogue] == [0, 1, 2]
    assert catalogue.add("heat/ex-1/t", "other", PLAIN) == 2
    assert len(catalogue) == 3
    assert catalogue.id_of("heat/ex-1") is None
    assert catalogue.ids_of(["heat/ex-1/t", "nothing", "leipzig-west/ss-07/u"]).tolist() == [2, MISSING, 1]
    assert catalogue.key_of(1) == "leipzig-west/ss-07/u"


def test_attributes_and_source_come_back_as_they_were_given() -> None:
    catalogue = utility()
    first = catalogue.attributes_of(0)
    assert first == SeriesAttributes(
        "W", "power", "electricity", "ss-07", "Plagwitz", "Netz GmbH", {"OBIS": "1-0:1.7.0"}
    )
    assert catalogue.attributes_of(2).device is None
    assert catalogue.source_of(2) == "heat"
    assert catalogue.counts() == {"field": 2, "heat": 1}
    assert catalogue.count_of_source("field") == 2
    with pytest.raises(IndexError, match="below 3, found 3"):
        catalogue.attributes_of(3)


def test_keys_of_ids_are_a_dictionary_column_with_null_for_an_unknown_id() -> None:
    column = utility().key_array(np.array([2, 0, 2, 9, MISSING], np.uint32))
    assert column.type == pa.dictionary(pa.int32(), pa.string())
    assert column.to_pylist() == ["heat/ex-1/t", "leipzig-west/ss-07/feeder-3/p", "heat/ex-1/t", None, None]


def test_a_device_has_one_number_and_a_series_without_device_is_a_device_of_its_own() -> None:
    catalogue = utility()
    catalogue.add("heat/ex-2/t", "heat", PLAIN)
    numbers = catalogue.device_number(np.array([0, 1, 2, 3, 99], np.uint32)).tolist()
    assert numbers == [0, 0, 1, 2, -1]
    assert catalogue.devices() == 3


def test_unit_and_quantity_once_set_never_change() -> None:
    catalogue = utility()
    with pytest.raises(ValueError, match="expected unit 'V', which never changes, found 'kV'"):
        catalogue.update(1, SeriesAttributes("kV", "voltage"))
    assert catalogue.update(1, SeriesAttributes(place="Connewitz", device="ss-08")) is True
    assert catalogue.attributes_of(1) == SeriesAttributes("V", "voltage", None, "ss-08", "Connewitz")
    assert catalogue.device_number(np.array([0, 1], np.uint32)).tolist() == [0, 2]
    version = catalogue.version
    assert catalogue.update(1, SeriesAttributes(place="Connewitz", device="ss-08")) is False
    assert catalogue.version == version


@pytest.mark.parametrize("key", ["", "a\x00b", "line\nbreak", "x" * 1025, "ü" * 513, "\ud800"])
def test_a_key_that_cannot_name_a_series_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="expected a series key"):
        Catalogue().add(key, "field", PLAIN)


def test_attributes_beyond_their_limit_are_refused() -> None:
    with pytest.raises(ValueError, match="expected a place of at most 1024 bytes"):
        Catalogue().add("k", "field", SeriesAttributes(place="x" * 1025))
    with pytest.raises(ValueError, match="expected external names of at most"):
        Catalogue().add("k", "field", SeriesAttributes(external={"MeLo": "x" * 20_000}))


def test_entries_written_out_and_applied_give_the_same_catalogue() -> None:
    catalogue = utility()
    copy = Catalogue()
    batches = catalogue.to_batches(max_bytes=150)
    assert len(batches) > 1
    assert all(batch.schema == SERIES for batch in batches)
    assert sum(copy.apply(batch).added for batch in batches) == 3
    assert list(copy) == list(catalogue)
    assert [copy.attributes_of(i) for i in range(3)] == [catalogue.attributes_of(i) for i in range(3)]
    assert copy.counts() == catalogue.counts()
    assert copy.device_number(np.arange(3, dtype=np.uint32)).tolist() == [0, 0, 1]


def test_applying_entries_again_changes_nothing() -> None:
    catalogue = utility()
    version = catalogue.version
    for batch in catalogue.to_batches():
        assert catalogue.apply(batch).changed == 0
    assert (len(catalogue), catalogue.version) == (3, version)


def test_only_entries_from_the_first_id_on_are_written() -> None:
    batches = utility().to_batches(first_id=2)
    assert [batch.column("key").to_pylist() for batch in batches] == [["heat/ex-1/t"]]
    assert utility().to_batches(first_id=3) == []


def test_a_later_entry_replaces_attributes_but_never_the_unit() -> None:
    catalogue = Catalogue()
    catalogue.apply(entries(entry(0, "a", unit="W", place="here", source="x")))
    applied = catalogue.apply(entries(entry(0, "a", unit="kW", place="there", source="y")))
    assert applied.changed == 1
    assert "expected unit 'W', which never changes, found 'kW'" in applied.problems[0]
    assert catalogue.attributes_of(0) == SeriesAttributes("W", place="there")
    assert catalogue.counts() == {"x": 0, "y": 1}


def test_ids_stay_dense_where_entries_were_lost() -> None:
    catalogue = Catalogue()
    applied = catalogue.apply(entries(entry(0, "a"), entry(3, "b")))
    assert list(catalogue) == ["a", "lost/1", "lost/2", "b"]
    assert applied.problems == ("series 1 to 2: their entries are lost",)


def test_entries_that_contradict_each_other_are_reported_and_not_used() -> None:
    catalogue = Catalogue()
    catalogue.apply(entries(entry(0, "a"), entry(1, "b")))
    applied = catalogue.apply(entries(entry(0, "z"), entry(2, "a"), entry(4_000_000_000, "far")))
    assert list(catalogue) == ["a", "b", "lost/2"]
    assert len(applied.problems) == 3


def test_external_names_that_are_no_json_object_do_not_hide_the_series() -> None:
    catalogue = Catalogue()
    catalogue.apply(entries(entry(0, "a", external="[not an object")))
    assert catalogue.attributes_of(0).external == {"": "[not an object"}


KEYS = st.text(st.characters(categories=["L", "N"], include_characters="/-."), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(KEYS, st.one_of(st.none(), st.sampled_from("abc"))), unique_by=lambda s: s[0]),
    st.data(),
)
def test_entries_cut_anywhere_add_up_to_the_same_catalogue(
    series: list[tuple[str, str | None]], data: st.DataObject
) -> None:
    whole = Catalogue()
    for key, device in series:
        whole.add(key, "s", SeriesAttributes(device=device))
    pieces = Catalogue()
    at = 0
    while at < len(series):
        size = data.draw(st.integers(1, len(series) - at))
        again = data.draw(st.integers(0, at))
        pieces.apply(
            pa.Table.from_batches(whole.to_batches(again)).slice(0, at - again + size).to_batches()[0]
        )
        at += size
    ids = np.arange(len(series), dtype=np.uint32)
    assert list(pieces) == [key for key, _ in series]
    assert pieces.device_number(ids).tolist() == whole.device_number(ids).tolist()
    assert pieces.devices() == whole.devices()


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("", [0, 1, 2]),
        ("SS-07", [0, 1]),
        ("plagwitz feeder", [0]),
        ("grünau", [2]),
        ("GRÜNAU temperature", [2]),
        ("netz", [0]),
        ("leipzig heat", []),
        ("leipzig-west/*", [0, 1]),
        ("*/P", [0]),
        ("heat/ex-?/t", []),
        ("heat.*", []),
        ("*", [0, 1, 2]),
        ("*.+(", []),
        ("1-0:1.7.0", []),
    ],
)
def test_search_wants_every_word_in_key_or_attributes_and_a_star_in_the_key(
    pattern: str, found: list[int]
) -> None:
    assert utility().match(pattern) == found


@pytest.mark.parametrize(
    "pattern", ["e" * 1101, " ".join(map(str, range(33))), "\ud800", "a\x00", "*" * 1000 + "("]
)
def test_a_pattern_that_cannot_match_finds_nothing_and_harms_nothing(pattern: str) -> None:
    assert utility().match(pattern) == []


def test_search_stops_at_its_limit() -> None:
    assert utility().match("e", limit=2) == [0, 1]


def test_readers_see_every_series_whose_addition_had_returned() -> None:
    catalogue = Catalogue()
    added = 0
    stop = threading.Event()
    wrong: list[str] = []

    def read() -> None:
        while not stop.is_set():
            known = added
            ids = np.arange(known, dtype=np.uint32)
            if known and catalogue.id_of(f"key {known - 1}") != known - 1:
                wrong.append(f"key {known - 1} not found")
            if catalogue.key_array(ids).to_pylist()[-1:] != [f"key {i}" for i in ids[-1:]]:
                wrong.append("another key")
            if (catalogue.device_number(ids) < 0).any():
                wrong.append("a series without device number")

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(20_000):
        catalogue.add(f"key {number}", "s", SeriesAttributes(device=f"device {number // 4}"))
        added = number + 1
    stop.set()
    for reader in readers:
        reader.join()
    assert wrong == []


MILLION = """
    import psutil
    import pyarrow as pa
    from ringmain.model.catalogue import Catalogue
    from ringmain.model.schemas import SERIES

    def entries(first, count):
        ids = range(first, first + count)
        meters = [f"meter-{i // 4:08}" for i in ids]
        columns = [
            list(ids),
            [f"leipzig-west/district-{i // 4 % 97:02}/{meter}/{'peuf'[i % 4]}" for i, meter in zip(ids, meters)],
            ["W", "Wh", "V", "Hz"] * (count // 4),
            ["power", "energy", "voltage", "frequency"] * (count // 4),
            ["electricity"] * count,
            meters,
            [f"Leipzig West/Street {i // 80}/House {i // 4 % 20}" for i in ids],
            [f"Household {i // 4}" for i in ids],
            ["field"] * count,
            [f'{{"MeLo":"DE00056266802AO6G56M11SN{i:09}"}}' if i % 4 == 1 else None for i in ids],
        ]
        arrays = [pa.array(column, field.type) for column, field in zip(columns, SERIES)]
        return pa.RecordBatch.from_arrays(arrays, schema=SERIES)

    catalogue = Catalogue()
    process = psutil.Process()
    before = process.memory_info().rss
    for first in range(0, 1_000_000, 4_000):
        assert catalogue.apply(entries(first, 4_000)).added == 4_000
    keys = catalogue.keys()
    growth_mb = (process.memory_info().rss - before) / 1e6
    assert len(keys) == len(catalogue) == 1_000_000
    assert 36 <= sum(map(len, keys[::1000].to_pylist())) / 1000 <= 45
    print(growth_mb)
"""


def test_a_million_series_take_less_than_250_mb() -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MILLION)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 250
