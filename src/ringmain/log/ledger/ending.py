"""Whether the end of a log is there: its files against what they themselves say was durable.

The mark and the newest state checkpoint name groups that were durable. Neither is ahead of the files: a mark is
written after the sync of its group and is not synced itself, so it may well be behind. Where one of them is ahead,
the newest groups were removed: by hand, or by the file system. An opening of the log enters that in the ledger; this
is for who looks before.
"""

from __future__ import annotations

from dataclasses import dataclass

from ringmain.log.builtin import LedgerKind
from ringmain.log.checkpoints import STATE, Checkpoints, restore_state
from ringmain.log.control import ControlState
from ringmain.log.ledger.result import MissingEnd
from ringmain.log.look import recover_beside
from ringmain.log.recovery import read_mark
from ringmain.log.store import Store


@dataclass(frozen=True, slots=True)
class Durable:
    """What was durable at least: up to which lsn, when that arrived, and the state of the newest checkpoint."""

    lsn: int
    arrival_ns: int
    state: ControlState

    def missing_end(self, store: Store, scanned_lsn: int) -> MissingEnd | None:
        """The groups behind the scanned ones that are not in the files; None where all of them are.

        What `self` says has to be read before the scan, and the files are listed again here: what a running writer
        adds meanwhile is never missed. A damaged group whose header can be read is there. Raises PositionGoneError, OSError.
        """
        if scanned_lsn >= self.lsn:
            return None
        recovered = recover_beside(store.fs, store.directory)
        recovered.store.close()
        legible = [
            one.last_lsn
            for one in recovered.findings
            if one.kind == LedgerKind.QUARANTINED and one.rows is not None
        ]
        there = max([scanned_lsn, recovered.kept_lsn, *legible])
        return MissingEnd(there + 1, self.lsn, max(there, self.state.lsn)) if there < self.lsn else None


def durable(store: Store) -> Durable:
    """What the mark and the newest checkpoint of a log say now. Raises OSError, NewerFormatError."""
    mark = read_mark(store.fs, store.directory)
    state = ControlState()
    for checkpoint in Checkpoints(store.fs, store.directory).load(STATE):
        restored = restore_state(checkpoint)
        if restored is not None:
            state = restored[0]
            break
    if mark is None:
        return Durable(state.lsn, state.arrival_ns, state)
    return Durable(max(state.lsn, mark.lsn), max(state.arrival_ns, mark.arrival_ns), state)
