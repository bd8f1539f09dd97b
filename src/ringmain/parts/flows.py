"""The part that computes: every flow of the configuration, each in a thread of its own, over one log."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from ringmain.config import NodeConfig
from ringmain.flows.flow_status import FlowState, FlowStatus
from ringmain.flows.following import Shared
from ringmain.flows.runner import FlowRunner
from ringmain.log.interface import Log
from ringmain.runtime.counters import Counters
from ringmain.serve.status import FlowView, StepView


class FlowsPart:
    """`start` once, `stop` once; `views` from any thread."""

    def __init__(self, config: NodeConfig, log: Log, counters: Counters) -> None:
        shared = Shared.of(log)
        self.runners = {
            name: FlowRunner(
                name,
                settings,
                log,
                counters,
                config.data / "snapshots",
                directory=config.path.parent,
                zone=ZoneInfo(config.node.timezone),
                shared=shared,
            )
            for name, settings in config.flows.items()
        }

    def start(self) -> None:
        """Begin; returns at once."""
        for runner in self.runners.values():
            runner.start()

    def stop(self) -> None:
        """Commit what is done and end, all at the same time. Idempotent."""
        for runner in self.runners.values():
            runner.stop(0.0)  # told, not waited for
        for runner in self.runners.values():
            runner.stop()

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
