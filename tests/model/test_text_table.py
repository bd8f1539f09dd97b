"""The text table: codes are dense and stable, whatever the texts and however they come in."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringmain.model.text_table import MISSING, TextTable

SETTINGS = settings(max_examples=100, deadline=None, derandomize=True)
TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), max_size=60)


@SETTINGS
@given(st.lists(st.tuples(st.booleans(), TEXTS), max_size=6))
def test_it_gives_the_codes_that_a_dict_would_give(rounds: list[tuple[bool, list[str]]]) -> None:
    table, model = TextTable(), dict[str, int]()
    for many, texts in rounds:
        expected = [model.setdefault(text, len(model)) for text in texts]
        if many:
            assert table.insert_many(pa.array(texts, pa.string())).tolist() == expected
        else:
            assert [table.insert(text) for text in texts] == expected
    assert len(table) == len(model)
    assert table.texts().to_pylist() == list(model)
    assert [table.text(code) for code in range(len(model))] == list(model)
    assert [table.find(text) for text in model] == list(model.values())
    probe = [*model, "not among them"]
    assert table.find_many(probe).tolist() == [*model.values(), MISSING if probe[-1] not in model else 0]


def test_it_grows_far_beyond_its_first_arrays_and_finds_everything_again() -> None:
    table = TextTable()
    texts = [f"substation-{number}/feeder-{number % 7}" for number in range(5000)]
    for text in texts[:1500]:
        table.insert(text)
    table.insert_many(pa.array(texts, pa.string()))
    assert table.find_many(texts).tolist() == list(range(5000))
    assert table.find("substation-5000/feeder-2") == -1


def test_an_array_of_texts_stays_as_it_was_while_the_table_grows() -> None:
    table = TextTable()
    table.insert_many(pa.array(["a", "b"]))
    before = table.texts()
    for number in range(1000):
        table.insert(f"later {number}")
    assert before.to_pylist() == ["a", "b"]
    before.validate(full=True)


def test_nulls_have_no_code() -> None:
    table = TextTable()
    assert table.insert_many(pa.array(["x", None, "x", "y"])).tolist() == [0, MISSING, 0, 1]


def test_equal_hashes_of_unequal_texts_are_told_apart() -> None:
    table = TextTable()
    table.insert("first")
    table.insert("second")
    table._hashes[1] = hash("third")  # as if "third" had the hash of "second"
    table._slots[:] = 0
    from ringmain.model.text_table import _place

    _place(table._slots, table._hashes[:2], 0)
    assert table.find("third") == -1
    assert table.find_many(["third", "first"]).tolist() == [MISSING, 0]


def test_a_lone_surrogate_is_not_found_and_cannot_be_inserted() -> None:
    table = TextTable()
    assert table.find("\ud800") == -1
    with pytest.raises(UnicodeEncodeError):
        table.insert("\ud800")
    assert len(table) == 0
