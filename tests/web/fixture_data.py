"""What the fixture's series measure: repeatable profiles and a catalogue of a small utility."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

MINUTE_MS = 60_000


def noise(seed: str, step: int) -> float:
    """A repeatable number from 0 to 1 for a name and a step."""
    state = 2166136261
    for byte in f"{seed}:{step}".encode():
        state = ((state ^ byte) * 16777619) & 0xFFFFFFFF
    state ^= state >> 15
    state = (state * 2246822519) & 0xFFFFFFFF
    return (state ^ (state >> 13)) / 0xFFFFFFFF


@dataclass(frozen=True)
class Profile:
    """How a medium's or a series' value moves: base, swing over 40 minutes, jitter from minute to minute."""

    base: float
    swing: float
    jitter: float

    def at(self, seed: str, time_ms: float) -> float:
        minute = int(time_ms // MINUTE_MS)
        share = (time_ms % MINUTE_MS) / MINUTE_MS
        wander = noise(seed, minute) * (1 - share) + noise(seed, minute + 1) * share - 0.5
        return self.base + self.swing * math.sin(time_ms / 2_400_000 * math.tau) + self.jitter * wander


LOADS = {"electricity": Profile(1.21e6, 0.9e5, 4.1e5), "heat": Profile(3.05e6, 2.4e5, 0.9e5)}
SUPPLY = {"electricity": Profile(-3.1e5, 1.6e5, 1.4e5), "heat": Profile(-3.2e6, 1.1e5, 0.6e5)}
MEMBERS = {"electricity": 2041, "heat": 46, "gas": 200, "water": 12}
LOADS |= {"gas": Profile(8.1e5, 0.3e5, 0.4e5), "water": Profile(7.1e4, 0.2e4, 0.4e4)}
SUPPLY |= {"gas": Profile(0.0, 0.0, 0.0), "water": Profile(0.0, 0.0, 0.0)}


def catalogue(size: int) -> list[dict[str, Any]]:
    """The series of a small utility, and households until there are `size`."""
    entries: list[dict[str, Any]] = []

    def add(key: str, unit: str, quantity: str, medium: str, place: str, device: str) -> None:
        entries.append(
            {
                "key": key,
                "id": len(entries),
                "unit": unit,
                "quantity": quantity,
                "medium": medium,
                "device": device,
                "place": place,
                "owner": None,
                "external": {},
                "interval_s": 10,
            }
        )

    for station in range(1, 4):
        name = f"ss-{station:02d}"
        add(f"{name}/voltage", "V", "voltage", "electricity", "leipzig-west", name)
        add(f"{name}/frequency", "Hz", "frequency", "electricity", "leipzig-west", name)
        for feeder in range(1, 9):
            add(
                f"{name}/feeder-{feeder}/power",
                "W",
                "power",
                "electricity",
                f"leipzig-west/{name}",
                f"{name}-f{feeder}",
            )
    for line in range(1, 5):
        add(f"heat-{line}/power", "W", "power", "heat", "heat-network", f"heat-{line}")
        add(f"heat-{line}/flow", "m3/h", "flow", "heat", "heat-network", f"heat-{line}")
        add(f"heat-{line}/supply-temperature", "degC", "temperature", "heat", "heat-network", f"heat-{line}")
    add("pv-1/power", "W", "power", "electricity", "pv-park", "pv-1")
    household = 0
    while len(entries) < size:
        household += 1
        device = f"hh-{household:05d}"
        place = f"leipzig-west/ss-{household % 3 + 1:02d}/feeder-{household % 8 + 1}"
        add(f"{device}/power", "W", "power", "electricity", place, device)
        add(f"{device}/energy", "Wh", "energy", "electricity", place, device)
    return entries[:size]


PROFILES = {
    "W": Profile(640.0, 180.0, 420.0),
    "Wh": Profile(4.2e6, 900.0, 300.0),
    "V": Profile(20_310.0, 60.0, 55.0),
    "Hz": Profile(50.003, 0.008, 0.02),
    "m3/h": Profile(41.2, 3.0, 2.5),
    "degC": Profile(88.4, 1.5, 0.8),
}
