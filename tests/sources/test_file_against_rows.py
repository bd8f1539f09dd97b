"""A CSV file read block by block gives what an obvious reader gives row by row, wherever blocks begin."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringmain.log import open_log
from ringmain.log.catalogue import SeriesRegistry
from ringmain.sources import file_blocks
from ringmain.sources.file_settings import FileSettings
from ringmain.sources.file_steps import FilePosition, FileSteps
from tests.sources.file_rig import SECOND, settings_of

Reading = tuple[str, int, float]

KEYS = st.sampled_from(
    ["a", "b", "Ä ö", "", '"q;uoted"', '"with ""two"""', "c d", '"open', 'mid"dle', '"a"b', "  "]
)
TIMES = st.sampled_from(
    [
        "2026-07-01 12:00",
        "2026-07-01 12:15:30",
        "2026-07-01T12:00:00Z",
        "2026-03-29 02:30",
        "2026-02-30 00:00",
        "",
        "soon",
        "2026-07-01",
    ]
)
VALUES = st.sampled_from(
    ["1", "-2,5", "1e3", "1.000,5", "", "-", "NaN", "abc", "1,2,3", '"7"', "+4", "0,0000000001", ",5", "5,"]
)
LINES = st.lists(
    st.tuples(KEYS, TIMES, VALUES).map(";".join)
    | st.sampled_from(["a;2026-07-01 12:00", "a;2026-07-01 12:00;1;2", "", ";;", "#", '"', "x"]),
    max_size=40,
)


def reference(lines: list[str], settings_: FileSettings) -> tuple[list[Reading], list[int]]:
    """(readings, numbers of lines that are none)."""
    zone = ZoneInfo("Europe/Berlin")
    readings: list[Reading] = []
    bad: list[int] = []
    field = r'(?:"(?:[^"]|"")*"|[^";][^;]*|)'
    for number, line in enumerate(lines, 2):
        if not line:
            continue
        if re.fullmatch(f"{field}(?:;{field})*", line) is None:
            bad.append(number)
            continue
        fields = next(csv.reader(io.StringIO(line), delimiter=";"))
        if len(fields) != 3:
            bad.append(number)
            continue
        key, time, value = fields
        try:
            moment = datetime.fromisoformat(time.strip())
            if moment.tzinfo is None:
                local = moment.replace(tzinfo=zone)
                if local.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != moment:
                    raise ValueError("skipped")
                moment = local
            if key in settings_.missing or not key:
                raise ValueError("no key")
            text = value.strip()
            if text in settings_.missing:
                continue
            text = text.replace(".", "").replace(",", ".")
            if re.fullmatch(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)(e[+-]?[0-9]+)?", text) is None:
                raise ValueError("no number")
        except ValueError:
            bad.append(number)
            continue
        readings.append((f"m/{key}", int(moment.timestamp()) * SECOND, float(text)))
    return readings, bad


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeriesRegistry]:
    with open_log(tmp_path_factory.mktemp("log")) as log:
        yield SeriesRegistry(log)


def read(path: Path, given_: FileSettings, registry: SeriesRegistry) -> tuple[list[Reading], list[int]]:
    readings: list[Reading] = []
    bad: list[int] = []
    names = {number: key for key, number in registry._new.items()}
    for step in FileSteps(path, FilePosition.of(path), "s", given_, registry, "Europe/Berlin").steps(
        lambda: 0
    ):
        names = {number: key for key, number in registry._new.items()}
        for columns in step.columns:
            readings += zip(
                [names[number] for number in columns.series.tolist()],
                columns.time.tolist(),
                columns.value.tolist(),
                strict=True,
            )
        bad += [int(letter.reason.split()[1].rstrip(":")) for letter in step.letters]
        assert step.received == step.rejected + step.empty + sum(
            len(columns.series) for columns in step.columns
        )
    return readings, bad


@settings(derandomize=True, deadline=None, max_examples=120)
@given(
    lines=LINES, block_bytes=st.sampled_from([80, 150, 400, 4 << 20]), ending=st.sampled_from(["\n", "\r\n"])
)
def test_blocks_give_what_rows_give(
    tmp_path_factory: pytest.TempPathFactory,
    registry: SeriesRegistry,
    lines: list[str],
    block_bytes: int,
    ending: str,
) -> None:
    path = tmp_path_factory.mktemp("csv") / "in.csv"
    path.write_bytes((ending.join(["meter;time;value", *lines]) + ending).encode())
    given_ = settings_of(separator=";", decimal=",", thousands=".")
    before = file_blocks.TextFile.blocks.__defaults__
    file_blocks.TextFile.blocks.__defaults__ = (block_bytes,)
    try:
        found = read(path, given_, registry)
    finally:
        file_blocks.TextFile.blocks.__defaults__ = before
    assert found == reference(lines, given_)
