"""The part that computes: every flow of the configuration, each in a thread of its own, over one log."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from ringmain.config import NodeConfig
from ringmain.flows.flow_status import FlowState, FlowStatus
from ringmain.flows.following import Shared
from ringmain.flows.removal import Removal
from ringmain.flows.runner import FlowRunner
from ringmain.log.interface import Log
from ringmain.parts.changes import Changes, stop_all
from ringmain.runtime.counters import Counters
from ringmain.serve.status import FlowView, StepView


class FlowsPart:
    """`start` once, `stop` once; `views` from any thread."""

    def __init__(self, config: NodeConfig, log: Log, counters: Counters) -> None:
        self._log = log
        self._counters = counters
        self._shared = Shared.of(log)
        self._stopped = False
        self._config = config
        self.runners = {name: self._runner(name, config) for name in config.flows}
        self._removal = Removal(log, config.flows)

    def _runner(self, name: str, config: NodeConfig) -> FlowRunner:
        return FlowRunner(
            name,
            config.flows[name],
            self._log,
            self._counters,
            config.data / "snapshots",
            directory=config.path.parent,
            zone=ZoneInfo(config.node.timezone),
            shared=self._shared,
        )

    def reload(self, config: NodeConfig) -> list[str]:
        """Take over another configuration: what changed ends where it is and goes on from there; what did is told.

        A flow is left alone if its settings, and the files that they name, are what they were.
        """
        zone_changed = config.node.timezone != self._config.node.timezone

        def differs(name: str) -> bool:
            runner = self.runners[name]
            return zone_changed or config.flows[name] != runner.settings or runner.files_changed()

        self._removal.stop()
        changes = Changes.between(self.runners, config.flows, differs)
        ending = [self.runners[name] for name in changes.ending]
        stop_all(ending)
        for runner in ending:
            runner.forget()
        if self._stopped:
            return []
        self.runners = changes.succession(self.runners, config.flows, lambda name: self._runner(name, config))
        self._config = config
        self._removal = Removal(self._log, config.flows)
        self._removal.start()
        return changes.told("flow")

    def start(self) -> None:
        """Begin; returns at once."""
        for runner in self.runners.values():
            runner.start()
        self._removal.start()

    def stop(self) -> None:
        """Commit what is done and end, all at the same time. Idempotent."""
        self._stopped = True
        stop_all([*self.runners.values(), self._removal])

    def states(self) -> list[FlowState]:
        """The state of every flow, quickly."""
        return [runner.state for runner in self.runners.values()]

    def views(self) -> tuple[FlowView, ...]:
        """Every flow at this moment."""
        return tuple(_view(runner.status()) for runner in self.runners.values())


def _view(status: FlowStatus) -> FlowView:
    return FlowView(
        name=status.name,
        to=status.to,
        state=status.state.value,
        lag_s=status.lag_s,
        rows=status.rows,
        late=status.late,
        revisions=status.revisions,
        ahead=status.ahead,
        duplicates=status.duplicates,
        last_error=status.last_error,
        failed=status.failed,
        newest_ns=status.newest_ns,
        steps=tuple(
            StepView(step.step, step.rows_in, step.rows_out, step.rows_aside, step.state_bytes)
            for step in status.steps
        ),
    )
