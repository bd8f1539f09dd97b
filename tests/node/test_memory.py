"""Memory does not grow at full load: a soak of an hour, with its curve."""

from __future__ import annotations

import csv
import os
import threading
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.conftest import free_port
from tests.node.memory_curve import MIB, MemoryCurve
from tests.node.publisher import Publisher
from tests.node.running import RunningNode
from tests.node.stored import configuration
from tests.soak import part_minutes

OUTPUT = Path(__file__).parents[2] / "test-output"
MINUTES = "RINGMAIN_SOAK_MEMORY_MINUTES"
MINUTES_MIN = 3
SAMPLE_S = 10.0
PUBLISHERS = 4
GROWTH_BYTES_MAX = 16 * MIB
"""Between the second and the last quarter, or `GROWTH_MAX` of the level if that is more: what allocators keep back."""
GROWTH_MAX = 0.03


class _Counted(list[Any]):
    """Counts what is appended and keeps nothing of it."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def append(self, _: Any) -> None:
        self.count += 1


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_memory_does_not_grow_at_full_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    minutes = float(os.environ.get(MINUTES) or min(60, part_minutes()))
    if minutes < MINUTES_MIN:
        pytest.skip(f"a curve of {minutes:g} minutes is all warm-up: PART_MINUTES={MINUTES_MIN} or more")
    port = free_port()
    text = configuration(port=port, http=free_port(), log='keep_size = "256MiB"')
    text = text.replace('segment = "2MiB"', 'segment = "16MiB"')
    curve, counted = MemoryCurve(), _Counted()
    with RunningNode(tmp_path, text) as node:
        publishers = [
            Publisher(port, f"p{number}", series=500, window=1_000, rate=1e6, acknowledged=counted)
            for number in range(PUBLISHERS)
        ]
        for publisher in publishers:
            publisher.start()
        started = time.monotonic()
        while (at_s := time.monotonic() - started) < 60 * minutes:
            assert node.process.poll() is None, node.stderr()[-2000:]
            curve.sample(node, at_s)
            threading.Event().wait(max(0.0, SAMPLE_S * len(curve.seconds) - (time.monotonic() - started)))
        rate = counted.count / (time.monotonic() - started)
        for publisher in publishers:
            publisher.finish()
        assert node.stop() == 0
    OUTPUT.mkdir(exist_ok=True)
    curve.write_csv(OUTPUT / "memory.csv")
    curve.write_svg(OUTPUT / "memory.svg")
    growth, level = curve.growth_bytes(), curve.level_bytes()
    with capsys.disabled():
        print(
            f"\n{minutes:g} minutes at {rate:,.0f} readings/s: {level / MIB:.0f} MiB after the warm-up, "
            f"{growth / MIB:+.1f} MiB until the end; test-output/memory.csv, memory.svg"
        )
    assert growth <= max(GROWTH_BYTES_MAX, GROWTH_MAX * level)


def _curve(growth_each: int) -> MemoryCurve:
    curve = MemoryCurve()
    for number in range(40):
        held = 100 * MIB + min(number, 8) * 5 * MIB + number * growth_each + (20 * MIB) * (number % 13 == 0)
        curve.add(number * SAMPLE_S, {"node": 10 * MIB, "intake": held})
    return curve


def test_a_curve_that_grows_after_its_warm_up_is_told_from_one_with_peaks() -> None:
    assert _curve(0).growth_bytes() == 0
    assert 18 * MIB < _curve(MIB).growth_bytes() < 22 * MIB
    assert _curve(0).level_bytes() == 150 * MIB
    with pytest.raises(ValueError, match="at least 8 samples, found 0"):
        MemoryCurve().growth_bytes()


def test_a_curve_is_written_as_numbers_and_as_a_drawing(tmp_path: Path) -> None:
    curve = _curve(MIB)
    curve.write_csv(tmp_path / "memory.csv")
    with (tmp_path / "memory.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["total_bytes"]) for row in rows] == [one["total"] for one in curve.samples]
    curve.write_svg(tmp_path / "memory.svg")
    drawing = ElementTree.parse(tmp_path / "memory.svg").getroot()
    lines = drawing.findall("{http://www.w3.org/2000/svg}polyline")
    assert [len(line.attrib["points"].split()) for line in lines] == [40, 40, 40]
