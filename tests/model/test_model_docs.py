"""docs/model.md says what the code does: schemas, quality bits and the tables of other standards."""

import re
from pathlib import Path

import pyarrow as pa
import pytest

from ringmain.model.quality import Quality
from ringmain.model.quality_maps import (
    IEC60870_BITS,
    IEC61850_BITS,
    IEC61850_ONE_WAY,
    OPCUA_CODES,
    from_qdp,
    from_qds,
)
from ringmain.model.schemas import DEAD_LETTER, EVENT, READING, SERIES

PAGE = (Path(__file__).parents[2] / "docs" / "model.md").read_text(encoding="utf-8")


def table(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading."""
    text = PAGE[PAGE.index(f"# {heading}\n") :]
    lines = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert lines is not None
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[0].splitlines()[2:]]


def quality(cell: str) -> int:
    """The bits that a cell names."""
    return sum(int(Quality[name]) for name in re.findall(r"`(\w+)`", cell))


@pytest.mark.parametrize(
    ("heading", "schema"),
    [("Reading", READING), ("Event", EVENT), ("Dead letter", DEAD_LETTER), ("Series", SERIES)],
)
def test_the_columns_of_a_shape_are_those_of_its_schema(heading: str, schema: pa.Schema) -> None:
    expected = [
        [f"`{field.name}`", f"{field.type}{', or null' if field.nullable else ''}"] for field in schema
    ]
    assert [row[:2] for row in table(heading)] == expected


def test_the_quality_bits_are_those_of_the_code() -> None:
    rows = table("Quality")
    named = {name: int(row[1]) for row in rows for name in re.findall(r"`(\w+)`", row[2])}
    assert named == {name: int(flag) for name, flag in Quality.__members__.items()}
    for row in rows:
        if row[0].isdecimal():
            assert int(row[1]) == 1 << int(row[0])


def test_the_opcua_codes_are_those_of_the_code() -> None:
    said = {
        int(row[0], 16): (row[1], quality(row[2]) if "`" in row[2] else 0)
        for row in table("OPC UA (Part 4, 7.39; Part 8)")
    }
    assert said == {code: (name, int(bits)) for code, (name, bits) in OPCUA_CODES.items()}


def test_the_iec61850_bits_are_those_of_the_code() -> None:
    said = {int(row[0], 16): (row[1], quality(row[2]), row[3] == "yes") for row in table("IEC 61850-7-3")}
    both = {**IEC61850_BITS, **IEC61850_ONE_WAY}
    assert said == {int(bit): (bit.name, int(ours), bit in IEC61850_BITS) for bit, ours in both.items()}


def test_the_iec60870_bits_are_those_of_the_code() -> None:
    rows = table("IEC 60870-5-101 and -104")
    assert [(int(row[0], 16), row[1]) for row in rows] == [(int(bit), bit.name) for bit in IEC60870_BITS]
    for row in rows:
        read = from_qdp if row[1] == "EI" else from_qds
        assert int(read(int(row[0], 16))) == quality(row[2])  # type: ignore[arg-type]
