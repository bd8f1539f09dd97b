"""The row-by-row reference of the window step (`reference/window.py`), fed with stored frames."""

from __future__ import annotations

import numpy as np

from ringmain.flows.settings import WindowSettings
from ringmain.log.interface import Frame

from .reference.window import Reference


class Model:
    def __init__(self, settings: WindowSettings) -> None:
        self.announced: dict[int, dict[str, str | None]] = {}
        self.reference = Reference(settings, self.announced, settings.to)
        self.now: int | None = None
        self.windows: list[tuple[object, ...]] = []
        self.side: list[tuple[object, ...]] = []

    @property
    def ahead(self) -> int:
        return self.reference.ahead

    @property
    def late_rows(self) -> int:
        return self.reference.late_rows

    def step(self, frame: Frame) -> None:
        if frame.stream == "catalogue":
            for entry in frame.rows.to_pylist():
                self.announced[entry["id"]] = {"device": entry["device"]}
        elif frame.stream == "ticks":
            self.advance(max(int(time.value) for time in frame.rows.column("time")))
        else:
            self.advance(frame.origin_arrival_ns)
            columns = [frame.rows.column(name).to_numpy() for name in ("series", "time", "value", "quality")]
            columns[1] = columns[1].astype(np.int64)
            names = ("series", "time", "value", "quality")
            assert self.now is not None
            for row in zip(*(column.tolist() for column in columns), strict=True):
                for aside in self.reference.take(dict(zip(names, row, strict=True)), self.now):
                    self.side.append((*(aside[name] for name in names), aside["arrived"]))

    def advance(self, now: int) -> None:
        if self.now is not None and now <= self.now:
            return
        self.now = now
        for row in self.reference.advance(now):
            series, start, _, *values, revision = row.values()
            self.windows.append((series, start, revision, *values))
