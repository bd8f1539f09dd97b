"""Every function that the drawing of docs/architecture.md names exists, under that name, in that file."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from functools import reduce
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"
_NAMED = re.compile(r"\b([a-z_]+(?:/[a-z_]+)*)/([a-z_]+)\.py[ │]+([A-Za-z_]+(?:\.[A-Za-z_]+)?)")


def _drawing() -> str:
    section = PAGE.read_text(encoding="utf-8").partition("## A batch's way, function by function")[2]
    return section.split("```")[1].replace("\n", " ")


def _named() -> Iterator[tuple[str, str]]:
    for room, module, name in _NAMED.findall(_drawing()):
        yield f"ringmain.{room.replace('/', '.')}.{module}", name


@pytest.mark.parametrize(("module", "name"), [*_named()])
def test_the_drawing_names_what_exists(module: str, name: str) -> None:
    found = reduce(getattr, name.split("."), importlib.import_module(module))
    assert callable(found)


def test_the_drawing_leads_from_the_device_to_readers_past_the_sync() -> None:
    names = [name for _, name in _named()]
    assert len(names) >= 24
    order = ["Connection.buffer_updated", "CommitThread.submit", "JournalWriter._write_and_sync"]
    order += ["Store.publish", "CommitThread._answer", "Connection.write_replies", "read"]
    assert [name for name in names if name in order] == order


def test_every_step_has_a_number_and_none_is_left_out() -> None:
    numbers = [int(number) for number in re.findall(r" (\d+)  [a-z]+/", _drawing())]
    assert numbers == list(range(1, len(numbers) + 1))
