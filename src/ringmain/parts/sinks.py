"""The part that hands out: every sink of the configuration, each in a thread of its own, over one log.

In a split node it is a process of its own: what writes files and speaks with receivers delays neither
acknowledgements nor flows, and stands back behind both.
"""

from __future__ import annotations

from ringmain.config import NodeConfig
from ringmain.log.interface import Log
from ringmain.runtime.counters import Counters
from ringmain.runtime.sink_runner import SinkPlan, SinkRunner
from ringmain.runtime.sink_status import SinkState, SinkStatus
from ringmain.sinks.types import Begin, Surroundings


class SinksPart:
    """`start` once, `stop` once; `views` from any thread."""

    def __init__(self, config: NodeConfig, log: Log, counters: Counters) -> None:
        around = Surroundings(config.node.name, config.path.parent.absolute(), config.node.timezone)
        self.runners: dict[str, SinkRunner] = {}
        for name, entry in config.sinks.items():
            settings, kind = entry.settings, entry.type
            plan = SinkPlan(
                name,
                entry.type_name,
                settings.streams,
                newest=(settings.begin or kind.begin) is Begin.NEWEST,
                batch_rows_max=kind.batch_rows_max(settings),
            )
            self.runners[name] = SinkRunner(plan, kind.build(name, settings, around), log, counters)

    def start(self) -> None:
        """Begin; returns at once."""
        for runner in self.runners.values():
            runner.start()

    def stop(self) -> None:
        """Store the positions of what is answered for and end, all at the same time. Idempotent."""
        for runner in self.runners.values():
            runner.stop(0.0)  # told, not waited for
        for runner in self.runners.values():
            runner.stop()

    def states(self) -> list[SinkState]:
        """The state of every sink, quickly."""
        return [runner.state for runner in self.runners.values()]

    def views(self) -> tuple[SinkStatus, ...]:
        """Every sink at this moment."""
        return tuple(runner.status() for runner in self.runners.values())
