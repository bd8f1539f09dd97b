"""What payloads say: rows and faults, and that the fast ways say the same as the plain one."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringmain.model.quality import Quality
from ringmain.sources.mapping_payload import PayloadReader
from ringmain.sources.mapping_shape import ELEMENTS_MAX, PAYLOAD_BYTES_MAX, Row, Shape, parse_path

SETTINGS = settings(max_examples=300, deadline=None, derandomize=True)
FLAT = Shape(values=(("v",),), time=("t",))
FLAGGED = Shape(values=(("v",),), time=("t",), quality=("q",))
TIMELESS = Shape(values=(("v",),))
NESTED = Shape(values=(("a", "v"),), time=("a", "t"))
SEVERAL = Shape(values=(("E", "p"), ("E", "e"), ("v",)), time=("t",))
INDEXED = Shape(values=(("P", "0"), ("P", "1")), time=("t",))
BARE = Shape(values=((),))
SHAPES = [FLAT, FLAGGED, TIMELESS, NESTED, SEVERAL, INDEXED, BARE]


def rows(shape: Shape, payload: str | bytes) -> list[Row]:
    found = PayloadReader(shape).examine(payload if isinstance(payload, bytes) else payload.encode())
    assert found.faults == []
    return found.rows


def faults(shape: Shape, payload: str | bytes) -> list[str]:
    found = PayloadReader(shape).examine(payload if isinstance(payload, bytes) else payload.encode())
    assert found.rows == []
    return [fault.reason for fault in found.faults]


@pytest.mark.parametrize(
    ("shape", "payload", "expected"),
    [
        (FLAT, '{"t":5,"v":1.5}', [Row(0, 5, 1.5, 0)]),
        (FLAT, ' {"v":1,"other":{"v":2},"t":"x"} ', [Row(0, "x", 1.0, 0)]),
        (FLAT, '{"v":1}', [Row(0, None, 1.0, 0)]),
        (FLAT, '{"v":1,"t":null}', [Row(0, None, 1.0, 0)]),
        (FLAT, '[{"t":1,"v":2},{"t":3,"v":4}]', [Row(0, 1, 2.0, 0), Row(0, 3, 4.0, 0)]),
        (FLAT, "[[1,2],[3,4]]", [Row(0, 1, 2.0, 0), Row(0, 3, 4.0, 0)]),
        (FLAT, '[[1,2],{"t":3,"v":4}]', [Row(0, 1, 2.0, 0), Row(0, 3, 4.0, 0)]),
        (FLAGGED, '{"t":5,"v":1,"q":16}', [Row(0, 5, 1.0, int(Quality.TEST))]),
        (FLAGGED, '{"t":5,"v":1,"q":"Questionable"}', [Row(0, 5, 1.0, int(Quality.QUESTIONABLE))]),
        (FLAGGED, '{"t":5,"v":1,"q":3}', [Row(0, 5, 1.0, int(Quality.INVALID))]),
        (FLAGGED, '{"t":5,"v":1}', [Row(0, 5, 1.0, 0)]),
        (NESTED, '{"a":{"t":1,"v":2}}', [Row(0, 1, 2.0, 0)]),
        (
            SEVERAL,
            '{"t":1,"E":{"p":2,"e":3},"v":4}',
            [Row(0, 1, 2.0, 0), Row(1, 1, 3.0, 0), Row(2, 1, 4.0, 0)],
        ),
        (SEVERAL, '{"t":1,"E":{"e":3}}', [Row(1, 1, 3.0, 0)]),
        (SEVERAL, '{"t":1,"E":null,"v":4}', [Row(2, 1, 4.0, 0)]),
        (INDEXED, '{"t":1,"P":[7,8,9]}', [Row(0, 1, 7.0, 0), Row(1, 1, 8.0, 0)]),
        (BARE, "230.1", [Row(0, None, 230.1, 0)]),
        (BARE, " -3 ", [Row(0, None, -3.0, 0)]),
        (BARE, "[[5,1]]", [Row(0, 5, 1.0, 0)]),
    ],
)
def test_a_payload_of_the_expected_shape_gives_rows(shape: Shape, payload: str, expected: list[Row]) -> None:
    assert rows(shape, payload) == expected
    typed = PayloadReader(shape).typed(payload.encode())
    assert typed is None or typed == expected


@pytest.mark.parametrize(
    ("shape", "payload", "reason"),
    [
        (FLAT, b"", "an empty payload"),
        (FLAT, b"\xff", "expected UTF-8, found byte 0xff at 0"),
        (FLAT, b'{"t":1,"v":1,"x":"\xff"}', "expected UTF-8"),
        (FLAT, b'{"t":1,"v":1', "expected JSON"),
        (FLAT, b'\xef\xbb\xbf{"t":1,"v":1}', "expected JSON"),
        (FLAT, b'{"t":1,"v":NaN}', "JSON, which has no NaN"),
        (FLAT, b'{"t":1,"v":-Infinity}', "JSON, which has no -Infinity"),
        (FLAT, b'{"t":1,"v":1e400}', "beyond 1.8e308"),
        (FLAT, b'{"t":1,"v":' + b"9" * 350 + b"}", "beyond 1.8e308"),
        (FLAT, b'{"t":1,"v":' + b"9" * 9000 + b"}", "beyond 1.8e308"),
        (FLAT, b'{"t":1,"v":"230.1"}', "found the text '230.1': a number in quotes is text"),
        (FLAT, b'{"t":1,"v":true}', "expected a number, found true"),
        (FLAT, b'{"t":1,"v":null}', "expected a number, found null"),
        (FLAT, b'{"t":1}', "expected v, found no such member"),
        (FLAT, b'{"t":1,"v":1,"v":2}', "expected v once, found it 2 times"),
        (FLAT, b'{"t":1,"t":1,"v":2}', "expected t once"),
        (FLAT, b'{"t":1,"v":1,"\\u0076":2}', "expected v once"),
        (FLAT, b"5", "expected an object, found 5"),
        (FLAT, b"[]", "at least one element"),
        (FLAT, b"[5]", "expected an object or a pair"),
        (FLAT, b"[[1,2,3]]", "expected a pair"),
        (FLAT, b"[" * 50_000 + b"]" * 50_000, "nested too deeply"),
        (FLAT, b" " * PAYLOAD_BYTES_MAX + b"1", "at most 1048576 bytes"),
        (FLAT, b"[" + b"1," * ELEMENTS_MAX + b"1]", "at most 30000 elements, found 30001"),
        (FLAGGED, b'{"t":1,"v":1,"q":65536}', "q: expected a quality"),
        (FLAGGED, b'{"t":1,"v":1,"q":true}', "q: expected a quality"),
        (FLAGGED, b'{"t":1,"v":1,"q":"fine"}', "found the text 'fine'"),
        (NESTED, b'{"a":5}', "expected an object at a, found 5"),
        (NESTED, b'{"a":{"t":1,"v":1},"a":{}}', "expected a once"),
        (SEVERAL, b'{"t":1}', "expected E.p or E.e or v, found no such member"),
        (SEVERAL, b"[[1,2]]", "expected an object, found an array"),
        (BARE, b'{"v":1}', "expected a number, found an object"),
        (BARE, b'"5"', "expected a number"),
    ],
)
def test_what_does_not_fit_is_a_fault_that_says_why(shape: Shape, payload: bytes, reason: str) -> None:
    found = faults(shape, payload)
    assert len(found) == 1
    assert reason in found[0]
    assert len(found[0]) < 300
    assert not PayloadReader(shape).typed(payload)


def test_elements_of_an_array_and_single_values_fail_singly() -> None:
    found = PayloadReader(FLAT).examine(b'[{"t":1,"v":2},{"t":1},[3,4],[5,"x"],7]')
    assert [(row.time, element) for row, element in zip(found.rows, found.elements, strict=True)] == [
        (1, 0),
        (3, 2),
    ]
    assert [fault.element for fault in found.faults] == [1, 3, 4]
    several = PayloadReader(SEVERAL).examine(b'{"t":1,"E":{"p":"x","e":3}}')
    assert [row.value_index for row in several.rows] == [1]
    assert len(several.faults) == 1


@pytest.mark.parametrize("text", ["", ".", "a.", ".a", "a..b"])
def test_a_path_with_an_empty_part_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="dotted path"):
        parse_path(text)


LEAVES = st.one_of(
    st.integers(-5, 70_000),
    st.integers(),
    st.floats(allow_nan=False),
    st.none(),
    st.booleans(),
    st.sampled_from(["good", "x", "ü", "v", "2026-11-23T07:42:54Z", '"', "\\", "\ud800"]),
)
NAMES = st.sampled_from(["t", "v", "q", "a", "E", "p", "e", "P", "x"])
NUMBERS = st.sampled_from(
    ["-0", "-0.0", "1e400", "1E5", "123456789012345678901234567890", "9007199254740993", "0.1", "NaN", "01"]
)


def objects(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    members = st.tuples(NAMES.map(json.dumps), inner).map(lambda member: f"{member[0]}:{member[1]}")
    return st.lists(members, max_size=4).map(lambda texts: "{" + ",".join(texts) + "}")


PLAIN = st.one_of(LEAVES.map(json.dumps), NUMBERS)
ANY = st.recursive(
    PLAIN,
    lambda inner: st.one_of(
        objects(inner), st.lists(inner, max_size=3).map(lambda texts: "[" + ",".join(texts) + "]")
    ),
    max_leaves=8,
)
LIKELY = st.one_of(
    objects(PLAIN),
    objects(st.one_of(PLAIN, objects(PLAIN))),
    st.builds(lambda t, v: f'{{"t":{t},"v":{v}}}', PLAIN, PLAIN),
    st.lists(st.builds(lambda t, v: f"[{t},{v}]", PLAIN, PLAIN), max_size=3).map(
        lambda e: f"[{','.join(e)}]"
    ),
    st.lists(objects(PLAIN), max_size=3).map(lambda texts: f"[{','.join(texts)}]"),
)


@SETTINGS
@given(st.sampled_from(SHAPES), st.one_of(LIKELY, ANY), st.booleans())
def test_the_fast_ways_read_what_the_plain_way_reads_or_leave_it(
    shape: Shape, text: str, ascii_only: bool
) -> None:
    payload = text.encode() if ascii_only else text.replace("\\u00fc", "ü").encode()
    reader = PayloadReader(shape)
    found = reader.examine(payload)
    typed = reader.typed(payload)
    if typed is not None:
        assert found.faults == []
        assert typed == found.rows
        assert [str(row.value) for row in typed] == [str(row.value) for row in found.rows]
    if reader.simple is not None:
        try:
            decoded = reader.simple(payload)
        except (ValueError, RecursionError):
            return
        if (payload.count(b'"') == 4 and decoded.t is not None) or reader.is_plain(payload):
            assert found == ([Row(0, decoded.t, decoded.v, 0)], [None], [])


@SETTINGS
@given(st.sampled_from(SHAPES), st.one_of(st.binary(max_size=40), st.text(max_size=40).map(str.encode)))
def test_any_bytes_give_rows_or_faults_and_never_an_exception(shape: Shape, payload: bytes) -> None:
    found = PayloadReader(shape).examine(payload)
    assert found.rows or found.faults
    PayloadReader(shape).typed(payload)
