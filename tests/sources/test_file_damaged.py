"""Damaged files: whatever is in them, each line gives readings, nothing, or a reason, and nothing ends."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ringmain.log import open_log
from ringmain.log.catalogue import SeriesRegistry
from ringmain.sources.file_blocks import UnreadableFileError
from ringmain.sources.file_steps import FilePosition, FileSteps
from ringmain.sources.file_table import LayoutError
from tests.sources.file_rig import settings_of

ROWS = 300


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeriesRegistry]:
    with open_log(tmp_path_factory.mktemp("log")) as log:
        yield SeriesRegistry(log)


def whole(kind: str) -> bytes:
    match kind:
        case "csv":
            lines = (b'"m%d",2026-01-01T00:00:%02dZ,%d.5\n' % (n % 5, n % 60, n) for n in range(ROWS))
            return b"meter,time,value\n" + b"".join(lines)
        case "ndjson":
            return b"".join(
                b'{"meter":"m%d","time":"2026-01-01T00:00:%02dZ","value":%d.5,"x":[1,{"a":2}]}\n'
                % (n % 5, n % 60, n)
                for n in range(ROWS)
            )
    table = pa.table(
        {
            "meter": pa.array([f"m{n % 5}" for n in range(ROWS)]).dictionary_encode(),
            "time": pa.array(range(ROWS), pa.timestamp("ms", tz="UTC")),
            "value": [n * 1.5 for n in range(ROWS)],
        }
    )
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd")
    return out.getvalue()


def damaged(data: bytes, chance: random.Random) -> bytes:
    found = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 5, 30])):
        at = chance.randrange(max(1, len(found)))
        match chance.randrange(10):
            case 0 | 1:
                del found[at : at + chance.randrange(50)]
            case 2 | 3:
                found[at:at] = chance.randbytes(chance.randrange(20))
            case 4:
                del found[max(1, at) :]
            case _ if at < len(found):
                found[at] = chance.choice([0, 10, 13, 34, 44, 255, chance.randrange(256)])
    return bytes(found)


def read(path: Path, registry: SeriesRegistry) -> None:
    steps = FileSteps(
        path, FilePosition.of(path), "s", settings_of(path=path.name), registry, "Europe/Berlin"
    )
    problem = "expected"
    try:
        for step in steps.steps(lambda: 0):
            readings = sum(len(columns.series) for columns in step.columns)
            assert step.received == readings + step.rejected + step.empty
            assert len(step.letters) >= min(1, step.rejected)
    except (LayoutError, UnreadableFileError) as error:
        problem = str(error)
    assert "expected" in problem


def campaign(kind: str, registry: SeriesRegistry, directory: Path, seed: int, files: int) -> None:
    chance = random.Random(seed)
    data = whole(kind)
    path = directory / f"in.{kind}"
    for _ in range(files):
        path.write_bytes(damaged(data, chance))
        read(path, registry)


@pytest.mark.parametrize("kind", ["csv", "ndjson", "parquet"])
def test_damaged_files_give_readings_or_reasons(kind: str, registry: SeriesRegistry, tmp_path: Path) -> None:
    campaign(kind, registry, tmp_path, 7, 60)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["csv", "ndjson", "parquet"])
def test_thousands_of_damaged_files_give_readings_or_reasons(
    kind: str, registry: SeriesRegistry, tmp_path: Path
) -> None:
    campaign(kind, registry, tmp_path, 8, 20_000)
