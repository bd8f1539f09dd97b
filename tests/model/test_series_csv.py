"""The CSV file of series: what it may look like, and that every error names its line."""

from pathlib import Path

import pytest

from ringmain.model.catalogue import SeriesAttributes
from ringmain.model.series_csv import SeriesFileError, read_series


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "series.csv"


def test_a_list_of_series_is_read_with_its_other_columns_as_external_names(file: Path) -> None:
    file.write_text(
        "key,unit,quantity,medium,device,place,owner,MeLo\n"
        "m1/p,W,power,electricity,m1,Plagwitz,Stadtwerke,DE001\n"
        "\n"
        'm2/t, °C ,temperature,heat,"meter, second",,,\n'
        "m3/p\n"
    )
    assert read_series(file) == [
        (
            "m1/p",
            SeriesAttributes("W", "power", "electricity", "m1", "Plagwitz", "Stadtwerke", {"MeLo": "DE001"}),
        ),
        ("m2/t", SeriesAttributes("°C", "temperature", "heat", "meter, second")),
        ("m3/p", SeriesAttributes()),
    ]


def test_a_spreadsheet_s_mark_line_ends_and_semicolons_are_read(file: Path) -> None:
    file.write_bytes("\ufeffkey;place\r\na;Grünau, Süd\r\n".encode())
    assert read_series(file) == [("a", SeriesAttributes(place="Grünau, Süd"))]


def test_columns_may_stand_in_any_order(file: Path) -> None:
    file.write_text("unit,key\nW,a\n")
    assert read_series(file) == [("a", SeriesAttributes("W"))]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "one of them `key`, found nothing"),
        ("Key,unit\na,W\n", 1, r"is 'key' meant to be it\?"),
        ("key,,unit\n", 1, "found none for column 2"),
        ("key,unit,unit\n", 1, "found 'unit' twice"),
        ("key,unit\na,W\nb,Wat\n", 3, "found 'Wat'"),
        ("key,unit\na,W\n,W\n", 3, "expected a series key, found an empty one"),
        ("key\na\n\nb\na\n", 5, "found 'a' as in line 2"),
        ("key,unit\na,W,x\n", 2, "expected 2 cells"),
        ('key,unit\na,W\nb,"V\n', 3, "expected cells between separators"),
        ('key,unit\n"a"b,W\n', 2, "expected cells between separators"),
        ("key\n" + "x" * 2000 + "\n", 2, "at most 1024 bytes"),
        ("key,place\na," + "x" * 2000 + "\n", 2, "place: expected at most 1024 bytes"),
        ("key,OBIS\na," + "x" * 20_000 + "\n", 2, "external names"),
        ("key\n" + "x" * 70_000 + "\n", 2, "at most 65536 characters"),
    ],
)
def test_an_error_names_file_line_expected_and_found(file: Path, text: str, line: int, message: str) -> None:
    file.write_text(text)
    with pytest.raises(SeriesFileError, match=message) as error:
        read_series(file)
    assert str(error.value).startswith(f"{file}:{line}: ")


def test_several_errors_are_told_at_once_but_not_thousands(file: Path) -> None:
    file.write_text("key,unit\n" + "".join(f"k{number},Wat\n" for number in range(5000)))
    with pytest.raises(SeriesFileError) as error:
        read_series(file)
    lines = str(error.value).splitlines()
    assert len(lines) == 21
    assert lines[1].startswith(f"{file}:3: ")


def test_what_is_not_utf8_is_said_so(file: Path) -> None:
    file.write_bytes(b"key,place\na,Gr\xfcnau\n")
    with pytest.raises(SeriesFileError, match="expected UTF-8, found byte 0xfc"):
        read_series(file)


def test_a_file_that_is_missing_is_an_os_error(file: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_series(file)
