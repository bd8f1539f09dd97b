"""What alarms of a step say: the text of a configuration with what is known of an alert put in."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

PLACEHOLDER = re.compile(r"\{([a-z]+)\}")


@dataclass(frozen=True, slots=True)
class Wording:
    """What alarms of a step say. `subject`: the attribute that names what an alert is about: `key` or `device`.

    `unit`: of what is told; `per`: what follows the unit of a series (`/1m` for a rate); None: it is not in that unit.
    """

    flow: str
    subject: str
    text: str
    condition: str
    limit: float | None
    unit: str | None
    per: str | None
    update_ns: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a text may name of an alert."""

    subject: str
    place: str | None
    device: str | None
    value: float
    unit: str | None


PLACEHOLDERS = ("subject", "place", "device", "value", "limit", "unit", "condition", "flow")


def worded(wording: Wording, about: Wanted) -> str:
    """The text of an alarm with the names in braces replaced; what is unknown is `—`."""
    text = wording.text or wording.condition
    if "{" not in text:
        return text
    told = {
        "subject": about.subject,
        "place": about.place,
        "device": about.device,
        "value": None if math.isnan(about.value) else f"{about.value:g}",
        "limit": None if wording.limit is None else f"{wording.limit:g}",
        "unit": about.unit,
        "condition": wording.condition,
        "flow": wording.flow,
    }
    return PLACEHOLDER.sub(lambda found: told.get(found[1], found[0]) or "—", text)
