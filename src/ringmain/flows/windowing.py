"""What the fold of a window step is told: its settings, worked out. Lengths in ns."""

from __future__ import annotations

from dataclasses import dataclass

from ringmain.flows.aggregates import WEIGHTED, Accumulator, Aggregate, Condition, Late, accumulators
from ringmain.flows.grid import Grid


@dataclass(frozen=True, slots=True)
class Windowing:
    """See `WindowStepSettings` for the meaning of the fields.

    `source`, `to`: the streams that are read and written. `hold_ns`: how long a value holds, 0 where nothing depends on
    it. `interval_ns`: one reading is expected in every such time (0: not told). `panes`: how many windows of the grid
    make one of the stream, for hopping windows; one begins every `hop` of them.
    """

    source: str
    to: str
    grid: Grid
    columns: tuple[Aggregate, ...]
    late: Late
    grace_ns: int
    idle_ns: int
    max_ahead_ns: int
    hold_ns: int = 0
    linear: bool = False
    condition: Condition | None = None
    interval_ns: int = 0
    panes: int = 1
    hop: int = 1

    @property
    def late_stream(self) -> str:
        """Where late readings go, and readings whose window could not be computed again."""
        return f"{self.to}.late"

    @property
    def accumulators(self) -> tuple[Accumulator, ...]:
        """What is added up besides the usual."""
        return accumulators(self.columns)

    @property
    def weighted(self) -> bool:
        """Whether results depend on how long values hold, and so on the reading before a window."""
        return bool(WEIGHTED & set(self.columns))

    @property
    def graded(self) -> bool:
        """Whether it matters if a valid reading is of good quality."""
        return Aggregate.GOOD in self.columns

    @property
    def reach(self) -> int:
        """How many windows a value may reach into behind its own."""
        return -(-self.hold_ns // self.grid.width_min_ns) if self.weighted else 0
