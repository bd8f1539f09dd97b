"""Removing segments so that their space is free at once, whoever still has them open.

A file that was only unlinked keeps its space for as long as any process holds it open: one that is stopped, or
reads slowly, would decide how full the disk is. So a removed segment is cut to nothing once its name is gone for
good; a reader of another process that is in it learns that its position is gone. A segment that a reader of this
very process is in is only unlinked: that reader gives what it has in hand, and holds one segment at most.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from ringmain.log.files import FileSystem
from ringmain.log.segments import sidecar_path
from ringmain.log.store import Segment


def remove_files(fs: FileSystem, directory: Path, segments: Sequence[Segment]) -> None:
    """Remove the files of segments that are out of the log already. What fails is left to the next opening."""
    held: list[int] = []
    for segment in segments:
        with contextlib.suppress(OSError):
            fs.remove(sidecar_path(directory, segment.number))
        handle = -1
        if not segment.users:
            with contextlib.suppress(OSError):
                handle = fs.open_existing(segment.path, write=True)
        try:
            fs.remove(segment.path)
        except OSError:
            if handle >= 0:
                fs.close(handle)
        else:
            if handle >= 0:
                held.append(handle)
    try:
        fs.sync_directory(directory)
    except OSError:
        pass  # a power cut may bring the names back: what they name stays
    else:
        for handle in held:
            fs.free(handle)
    for handle in held:
        fs.close(handle)
