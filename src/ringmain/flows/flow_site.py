"""What a flow stands on as long as it lives, whatever it is at: its log, its snapshots, its counters, its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ringmain.flows.counting import FlowCounters
from ringmain.flows.flow import FlowPlan
from ringmain.flows.folding import Folding
from ringmain.flows.poison import PassedOver, giving_up
from ringmain.flows.snapshot import Snapshots
from ringmain.flows.takeovers import Takeovers
from ringmain.log.interface import Log


@dataclass(frozen=True, slots=True)
class FlowSite:
    """`tries`: of a batch on which a step fails; `stopping()`: whether the flow is being ended."""

    name: str
    tries: int
    log: Log
    snapshots: Snapshots
    counting: FlowCounters
    stopping: Callable[[], bool]

    def folding(self, plan: FlowPlan, passed_over: PassedOver, taken: Takeovers) -> Folding:
        """A fold of the plan that has not begun, which goes on without what the flow passes over."""
        return Folding(
            giving_up(plan, passed_over.given_up),
            self.log,
            self.snapshots,
            passed_over.skipped,
            self.stopping,
            taken.known,
        )
