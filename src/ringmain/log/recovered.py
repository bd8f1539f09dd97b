"""What recovery found in a log's directory, on its way to whoever opens it."""

from __future__ import annotations

from dataclasses import dataclass, field

from ringmain.log.backup.restored import Restored
from ringmain.log.checkpoints import Checkpoint, Checkpoints
from ringmain.log.frames import Mark
from ringmain.log.ledger.findings import Finding
from ringmain.log.segments import StoredGroup
from ringmain.log.store import Store


@dataclass(slots=True)
class Recovered:
    """What recovery found."""

    store: Store
    checkpoints: Checkpoints
    carried: list[StoredGroup] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    strangers: list[int] = field(default_factory=list)
    incarnation: int = 0
    continuous: bool = True
    next_lsn: int = 1
    kept_lsn: int = 0
    mark: Mark | None = None
    restored: Restored | None = None
    removed_lsn: int = 0
    """Up to here frames were removed by retention, as the state says or a group that is not proven yet."""
    zeros_from: int | None = None
    """Where the zeros begin that a prepared last segment ends with; None: there are none."""
    used: list[Checkpoint] = field(default_factory=list)
    """The checkpoints that this was made of."""
    has_lost_end: bool = False
    """What was durable at the end is no longer in the directory."""
    is_whole: bool = False
    """The oldest segment is the first one of the log: all of its state can be made from the frames."""
