"""The part that hands out: every sink of the configuration, each in a thread of its own, over one log.

In a split node it is a process of its own: what writes files and speaks with receivers delays neither
acknowledgements nor flows, and stands back behind both.
"""

from __future__ import annotations

from ringmain.config import NodeConfig
from ringmain.log.interface import Log
from ringmain.parts.changes import Changes, stop_all
from ringmain.runtime.counters import Counters
from ringmain.runtime.sink_runner import SinkPlan, SinkRunner
from ringmain.runtime.sink_status import SinkState, SinkStatus
from ringmain.sinks.types import Begin, Surroundings


class SinksPart:
    """`start` once, `stop` once; `views` from any thread."""

    def __init__(self, config: NodeConfig, log: Log, counters: Counters) -> None:
        self._log = log
        self._counters = counters
        self._config = config
        self._stopped = False
        self.runners = {name: self._runner(name, config) for name in config.sinks}

    def _runner(self, name: str, config: NodeConfig) -> SinkRunner:
        around = Surroundings(config.node.name, config.path.parent.absolute(), config.node.timezone)
        entry = config.sinks[name]
        settings, kind = entry.settings, entry.type
        plan = SinkPlan(
            name,
            entry.type_name,
            settings.streams,
            newest=(settings.begin or kind.begin) is Begin.NEWEST,
            batch_rows_max=kind.batch_rows_max(settings),
        )
        return SinkRunner(plan, kind.build(name, settings, around), self._log, self._counters)

    def reload(self, config: NodeConfig) -> list[str]:
        """Take over another configuration: what changed ends where it is and goes on from there; what did is told."""
        old = self._config
        moved = (config.node.name, config.node.timezone) != (old.node.name, old.node.timezone)
        changes = Changes.between(
            self.runners, config.sinks, lambda name: moved or config.sinks[name] != old.sinks.get(name)
        )
        stop_all(self.runners[name] for name in changes.ending)
        if self._stopped:
            return []
        self.runners = changes.succession(self.runners, config.sinks, lambda name: self._runner(name, config))
        self._config = config
        return changes.told("sink")

    def start(self) -> None:
        """Begin; returns at once."""
        for runner in self.runners.values():
            runner.start()

    def stop(self) -> None:
        """Store the positions of what is answered for and end, all at the same time. Idempotent."""
        self._stopped = True
        stop_all(self.runners.values())

    def states(self) -> list[SinkState]:
        """The state of every sink, quickly."""
        return [runner.state for runner in self.runners.values()]

    def views(self) -> tuple[SinkStatus, ...]:
        """Every sink at this moment."""
        return tuple(runner.status() for runner in self.runners.values())
