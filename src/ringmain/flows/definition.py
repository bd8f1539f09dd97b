"""What a flow computes, in the form in which it is kept beside its position and its snapshots.

Results of one definition never continue those of another: a flow whose definition changed writes to a new stream.
"""

from __future__ import annotations

import hashlib

import msgspec

from ringmain.flows.settings import WindowSettings

STEP_VERSION = 1
"""Part of a flow's definition: grows when the step computes something else."""


class Definition(msgspec.Struct, frozen=True):
    """What a flow computes, as it is kept beside its position. Lengths in ns."""

    version: int
    input: str
    to: str
    window_ns: int
    grace_ns: int
    idle_ns: int
    max_ahead_ns: int
    late: str
    values: list[str]

    def differences(self, settings: WindowSettings) -> str:
        """What is other in the settings, for a message."""
        new = definition_of(settings)
        return ", ".join(
            f"{name}: was {getattr(self, name)}, now {getattr(new, name)}"
            for name in self.__struct_fields__
            if getattr(self, name) != getattr(new, name)
        )


def definition_of(settings: WindowSettings) -> Definition:
    """The definition that settings stand for: `60s` and `1m` are the same."""
    return Definition(
        STEP_VERSION,
        settings.from_,
        settings.to,
        settings.window_ns,
        settings.grace_ns,
        settings.idle_ns,
        settings.max_ahead_ns,
        str(settings.late),
        [column.value for column in settings.columns],
    )


def definition_text(settings: WindowSettings) -> bytes:
    """The definition as JSON, the form in which it is kept."""
    return msgspec.json.encode(definition_of(settings))


def definition_hash(settings: WindowSettings) -> str:
    """The hash of what a flow computes: SHA-256 of its definition."""
    return hashlib.sha256(definition_text(settings)).hexdigest()
