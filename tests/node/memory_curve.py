"""Resident memory of a node over time: sampled, judged after a warm-up, and drawn."""

from __future__ import annotations

import contextlib
import csv
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import psutil

from tests.node.running import RunningNode

MIB = 1 << 20
WIDTH, HEIGHT, LEFT, BOTTOM = 900, 400, 70, 40
COLOURS = ("#111111", "#0067a3", "#c4570a", "#2b7a2b", "#8a3ab9")
TOTAL = "total"


@dataclass(slots=True)
class MemoryCurve:
    """Samples: seconds since the start, and bytes of each process of the node by the name of its part."""

    seconds: list[float] = field(default_factory=list)
    samples: list[dict[str, int]] = field(default_factory=list)

    def sample(self, node: RunningNode, at_s: float) -> None:
        """Add what the node and its parts hold now."""
        found = {"node": node.process.pid, **node.parts()}
        held = {}
        for name, pid in found.items():
            with contextlib.suppress(psutil.NoSuchProcess):
                held[name] = psutil.Process(pid).memory_info().rss
        self.add(at_s, held)

    def add(self, at_s: float, held: dict[str, int]) -> None:
        """Add a sample."""
        self.seconds.append(at_s)
        self.samples.append({**held, TOTAL: sum(held.values())})

    def growth_bytes(self) -> float:
        """By how much the total of the last quarter lies above that of the second: medians, so that no peak decides.

        The first quarter is the warm-up. Raises ValueError for fewer than 8 samples.
        """
        totals = [one[TOTAL] for one in self.samples]
        if len(totals) < 8:
            raise ValueError(f"expected at least 8 samples, found {len(totals)}")
        quarter = len(totals) // 4
        return median(totals[-quarter:]) - median(totals[quarter : 2 * quarter])

    def level_bytes(self) -> float:
        """What the node holds after the warm-up."""
        quarter = len(self.samples) // 4
        return median(one[TOTAL] for one in self.samples[quarter : 2 * quarter])

    def names(self) -> list[str]:
        """Total first, then the parts."""
        return [TOTAL, *sorted({name for one in self.samples for name in one} - {TOTAL})]

    def write_csv(self, path: Path) -> None:
        """One row a sample; bytes; empty where a part was not there."""
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["seconds", *(f"{name}_bytes" for name in self.names())])
            for at_s, held in zip(self.seconds, self.samples, strict=True):
                writer.writerow([round(at_s, 1), *(held.get(name, "") for name in self.names())])

    def write_svg(self, path: Path) -> None:
        """The curves: minutes to the right, MiB upwards."""
        end_s = max(self.seconds[-1], 1.0)
        top = max(one[TOTAL] for one in self.samples) * 1.1
        step = next(size for size in (10, 50, 100, 200, 500, 1000) if top / MIB / size <= 8 or size == 1000)

        def place(at_s: float, held_bytes: float) -> str:
            x = LEFT + at_s / end_s * (WIDTH - LEFT - 10)
            y = HEIGHT - BOTTOM - held_bytes / top * (HEIGHT - BOTTOM - 10)
            return f"{x:.1f},{y:.1f}"

        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="13">',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        ]
        for mib in range(0, int(top / MIB) + 1, step):
            x, y = place(0, mib * MIB).split(",")
            parts.append(f'<line x1="{x}" y1="{y}" x2="{WIDTH - 10}" y2="{y}" stroke="#dddddd"/>')
            parts.append(f'<text x="{LEFT - 6}" y="{y}" text-anchor="end">{mib} MiB</text>')
        every_s = next(size for size in (10, 60, 300, 600, 3600) if end_s / size <= 8 or size == 3600)
        for at_s in range(0, int(end_s) + 1, every_s):
            x, _ = place(at_s, 0).split(",")
            label = f"{at_s // 60} min" if every_s >= 60 else f"{at_s} s"
            anchor = "end" if float(x) > WIDTH - 40 else "middle"
            parts.append(f'<text x="{x}" y="{HEIGHT - 12}" text-anchor="{anchor}">{label}</text>')
        for number, name in enumerate(self.names()):
            colour = COLOURS[number % len(COLOURS)]
            points = " ".join(
                place(at_s, held[name])
                for at_s, held in zip(self.seconds, self.samples, strict=True)
                if name in held
            )
            parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
            parts.append(f'<text x="{LEFT + 10 + 110 * number}" y="16" fill="{colour}">{name}</text>')
        path.write_text("\n".join([*parts, "</svg>"]) + "\n")
