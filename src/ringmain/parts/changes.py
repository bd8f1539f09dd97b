"""What another configuration changes among things that run under names: flows, sinks, sources."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar


class Runner(Protocol):
    """What runs under a name."""

    def start(self) -> None:
        """Begin; returns at once."""
        ...

    def stop(self, timeout_s: float = 30.0) -> bool:
        """End; whether it did within the time. Idempotent."""
        ...


_Runner = TypeVar("_Runner", bound=Runner)


def stop_all(runners: Iterable[Runner]) -> None:
    """End all of them at the same time."""
    ending = list(runners)
    for runner in ending:
        runner.stop(0.0)  # told, not waited for
    for runner in ending:
        runner.stop()


@dataclass(frozen=True, slots=True)
class Changes:
    """Names of what has to end, to begin anew, and to begin."""

    gone: tuple[str, ...]
    changed: tuple[str, ...]
    new: tuple[str, ...]

    @classmethod
    def between(
        cls, running: Collection[str], wanted: Collection[str], differs: Callable[[str], bool]
    ) -> Changes:
        """`differs(name)`: whether what runs under a name that is still wanted is to be another one."""
        return cls(
            tuple(name for name in running if name not in wanted),
            tuple(name for name in wanted if name in running and differs(name)),
            tuple(name for name in wanted if name not in running),
        )

    @property
    def ending(self) -> tuple[str, ...]:
        """What has to end."""
        return (*self.gone, *self.changed)

    @property
    def beginning(self) -> tuple[str, ...]:
        """What has to begin."""
        return (*self.changed, *self.new)

    def told(self, kind: str) -> list[str]:
        """The changes in words; `kind` is what has the names, e.g. `flow`."""
        return [
            *(f"{kind} {name} ended" for name in self.gone),
            *(f"{kind} {name} changed" for name in self.changed),
            *(f"{kind} {name} is new" for name in self.new),
        ]

    def succession(
        self, running: Mapping[str, _Runner], wanted: Iterable[str], make: Callable[[str], _Runner]
    ) -> dict[str, _Runner]:
        """What runs after the changes, in the order of `wanted`; `make(name)` makes what begins, which is started."""
        started = {name: make(name) for name in self.beginning}
        for runner in started.values():
            runner.start()
        return {name: started.get(name) or running[name] for name in wanted}
