"""Every example in docs/mapping.md: the mapping is accepted, and its messages become what the page says."""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import pytest

from ringmain.log import open_log
from ringmain.log.catalogue import SeriesRegistry
from ringmain.model.quality import Quality
from ringmain.sources.mapping import Mapper, MapSettings

PAGE = Path(__file__).parents[2] / "docs" / "mapping.md"
ARRIVAL_NS = 1_795_419_780_000_000_000  # 2026-11-23T07:43:00Z


@dataclass
class Message:
    topic: str
    payload: str
    expected: list[str] = field(default_factory=list)


def examples() -> Iterator[tuple[MapSettings, list[Message]]]:
    blocks = re.findall(r"```(\w+)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    for (kind, toml), (kind_after, text) in zip(blocks[::2], blocks[1::2], strict=True):
        assert (kind, kind_after) == ("toml", "messages")
        (table,) = tomllib.loads(toml)["sources"]["field"]["map"]
        messages: list[Message] = []
        for line in text.splitlines():
            if line.startswith("    "):
                messages[-1].expected.append(line.strip())
            else:
                messages.append(Message(*line.split("   ", 1)))
        yield msgspec.convert(table, MapSettings), messages


EXAMPLES = list(examples())


def test_the_page_has_its_examples() -> None:
    assert len(EXAMPLES) == 8
    assert all(message.expected for _, messages in EXAMPLES for message in messages)


@pytest.mark.parametrize(("settings", "messages"), EXAMPLES, ids=[settings.topic for settings, _ in EXAMPLES])
def test_an_example_does_what_the_page_says(
    settings: MapSettings, messages: list[Message], tmp_path: Path
) -> None:
    assert settings.check() == ([], [])
    log = open_log(tmp_path / "data")
    registry = SeriesRegistry(log)
    mapper = Mapper("field", [settings], registry)
    for message in messages:
        mapped = mapper.map([message.topic], [message.payload.encode()], ARRIVAL_NS)
        registry.save()
        said = []
        if mapped.columns is not None:
            columns = mapped.columns
            for key, time, value, quality in zip(
                registry.catalogue.key_array(columns.series).to_pylist(),
                columns.time,
                columns.value,
                columns.quality,
                strict=True,
            ):
                said.append("   ".join([key, _text(time), f"{value:.15g}", *_flags(int(quality))]))
        said += [f"dead letter: {letter.reason}" for letter in mapped.letters]
        assert said == message.expected, message
    log.close()


def _text(ns: np.int64) -> str:
    text = str(np.datetime64(int(ns), "ns"))
    whole, _, fraction = text.partition(".")
    fraction = fraction.rstrip("0")
    return f"{whole}.{fraction}Z" if fraction else f"{whole}Z"


def _flags(quality: int) -> list[str]:
    return [" ".join(str(flag.name) for flag in Quality(quality))] if quality else []


def test_every_key_of_a_map_is_on_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    table = text[text.index("## All keys") :]
    for name in MapSettings.__struct_fields__:
        assert f"`{name}`" in table, name
