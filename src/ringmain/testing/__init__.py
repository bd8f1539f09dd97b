"""The test kit: a disk that does what disks do, faults on a real one, and a clock that a test moves.

For whoever builds on the log and wants to know that nothing acknowledged is ever missing: `open_log(path, fs=disk)`
takes a `SimulatedDisk`, which loses, keeps, tears and reorders whatever was not synced when its power is cut. Nothing
of the product imports this package. `docs/testing-kit.md` has an example.
"""

from ringmain.testing.clock import SimulatedClock
from ringmain.testing.disk import PAGE_BYTES, SECTOR_BYTES, SimulatedDisk
from ringmain.testing.faults import CHANGING_CALLS, Faults
from ringmain.testing.local import FaultyFiles

__all__ = [
    "CHANGING_CALLS",
    "PAGE_BYTES",
    "SECTOR_BYTES",
    "Faults",
    "FaultyFiles",
    "SimulatedClock",
    "SimulatedDisk",
]
