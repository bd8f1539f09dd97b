"""Text files come as blocks of whole lines that are the same wherever reading begins, whatever is in the file."""

from __future__ import annotations

import contextlib
import gzip
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringmain.sources.file_blocks import LINE_BYTES_MAX, Block, TextFile, UnreadableFileError

LINES = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), max_size=40)
    | st.just("")
    | st.just("x" * 300),
    max_size=60,
)


def blocks_of(
    path: Path, block_bytes: int, encoding: str = "utf-8", offset: int = 0, line: int = 1
) -> list[Block]:
    file = TextFile(path, encoding, offset, line)
    try:
        return list(file.blocks(block_bytes))
    finally:
        file.close()


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    lines=LINES,
    ending=st.sampled_from(["\n", "\r\n"]),
    last=st.booleans(),
    packing=st.sampled_from(["", "gzip", "zstd"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    block_bytes=st.integers(350, 2000),
)
def test_every_line_comes_once_with_its_number_and_from_any_block_on_the_same(
    tmp_path_factory: pytest.TempPathFactory,
    lines: list[str],
    ending: str,
    last: bool,
    packing: str,
    encoding: str,
    block_bytes: int,
) -> None:
    path = tmp_path_factory.mktemp("blocks") / "file"
    data = (ending.join(lines) + (ending if last and lines else "")).encode(encoding)
    if packing == "gzip":
        data = gzip.compress(data)
    elif packing == "zstd":
        data = pa.compress(data, "zstd", asbytes=True)
    path.write_bytes(data)
    given_encoding = "utf-16" if encoding == "utf-16" else "utf-8"
    whole = blocks_of(path, block_bytes, given_encoding)
    expected = [(number, text.encode()) for number, text in enumerate(lines, 1) if text and "\0" not in text]
    found = [(one.number_of(place), line) for one in whole for place, line in enumerate(one.lines()) if line]
    assert found == expected
    assert [bad.number for one in whole for bad in one.bad] == [
        number for number, text in enumerate(lines, 1) if "\0" in text
    ]
    for place, block in enumerate(whole):
        rest = blocks_of(path, block_bytes, given_encoding, block.offset, block.line)
        assert rest == whole[place:]


def test_a_line_longer_than_a_block_is_passed_over_wherever_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a\n" + b"x" * 5000 + b"\nb\n" + b"y" * 3000)
    blocks = blocks_of(path, 1000)
    assert [line for block in blocks for line in block.lines()] == [b"a", b"b"]
    assert [(bad.number, bad.length_bytes) for block in blocks for bad in block.bad] == [(2, 5001), (4, 3000)]


def test_lines_up_to_the_limit_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * (LINE_BYTES_MAX - 1) + b"\n" + b"y" * (LINE_BYTES_MAX + 1) + b"\nz")
    (block,) = blocks_of(path, 4 << 20)
    assert [len(line) for line in block.lines()] == [LINE_BYTES_MAX - 1, 1]
    assert [bad.number for bad in block.bad] == [2]


@pytest.mark.parametrize("cut", [5, 25, 50, 200])
def test_a_cut_gzip_gives_whole_lines_and_then_the_error(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "file"
    whole = gzip.compress(bytes(range(97, 123)) * 3 + b"\n" + b"line\n" * 50 + bytes(range(97, 123)))
    path.write_bytes(whole[:cut])
    taken: list[Block] = []
    with pytest.raises(UnreadableFileError) if cut < len(whole) else contextlib.nullcontext():
        file = TextFile(path, "utf-8")
        taken.extend(file.blocks(100))
    assert all(block.data.endswith(b"\n") for block in taken[:-1])


def test_a_gzip_bomb_is_read_in_bounded_pieces(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(b"\0" * 50_000_000))
    file = TextFile(path, "utf-8")
    (block,) = file.blocks(1 << 20)
    assert block.data == b""
    assert block.bad[0].length_bytes == 50_000_000
    file.close()


def test_bytes_that_are_no_text_in_the_encoding_take_their_line_with_them_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a\n\xff\xfe\nb\nc\0d\ne\n")
    (block,) = blocks_of(path, 1 << 20)
    assert (block.lines(), block.numbers) == ([b"a", b"b", b"e"], [1, 3, 5])
    assert [bad.number for bad in block.bad] == [2, 4]


@settings(derandomize=True, deadline=None, max_examples=40)
@given(
    before=st.sampled_from([0, 1, 4095, 4096]),
    odd=st.lists(
        st.sampled_from([b"\n", b"\r\n", b"a\n", b"a\r\n", b"\r", b"a\rb\n", b"\0\n", b"a\tb\n", b"\r\r\n"]),
        max_size=4,
    ),
    behind=st.sampled_from([b"", b"x", b"\r", b"\n", b"y" * 63 + b"\n"]),
)
def test_lines_that_are_none_are_found_wherever_they_stand_in_a_block(
    tmp_path_factory: pytest.TempPathFactory, before: int, odd: list[bytes], behind: bytes
) -> None:
    data = (b"z" * 63 + b"\n") * before + b"".join(odd) + behind
    path = tmp_path_factory.mktemp("odd") / "file"
    path.write_bytes(data)
    expected, bad = [], []
    lines = data.split(b"\n")
    for number, line in enumerate(lines if lines[-1] else lines[:-1], 1):
        text = line.removesuffix(b"\r")
        if b"\0" in text or b"\r" in text:
            bad.append(number)
        elif text:
            expected.append((number, text))
    blocks = blocks_of(path, 4 << 20)
    found = [(block.number_of(place), line) for block in blocks for place, line in enumerate(block.lines())]
    assert found == expected
    assert [line.number for block in blocks for line in block.bad] == bad


def test_a_line_is_too_long_from_its_first_byte_behind_the_bound_on(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for longer, fine in ((0, True), (1, False)):
        for head in (b"", b"a\n" * 100):
            long = b"x" * (LINE_BYTES_MAX + longer)
            path.write_bytes(head + long + b"\nb\n" + b"c\n" * 1000)
            blocks = blocks_of(path, 4 << 20)
            lines = [line for block in blocks for line in block.lines()]
            assert (long in lines) == fine
            assert [line.length_bytes for block in blocks for line in block.bad] == (
                [] if fine else [len(long)]
            )
            assert len(lines) == head.count(b"\n") + 1 + 1000 + fine
