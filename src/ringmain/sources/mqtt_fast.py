"""The fast path: a connection's whole receive buffer into columns and PUBACK bytes, by compiled loops.

Takes what the mapping calls simple (`Mapper.simple_plan`) on topics that the general path has mapped before, and
leaves every other packet to that path, in order. Promises: the same readings, letters and replies as without it
(a property test feeds both); bounded tables, emptied when full. Needs Numba, the extra `fast`.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from ringmain.model.quality import Quality
from ringmain.runtime.contract import Columns
from ringmain.sources import mqtt_fast_kernel as kernel
from ringmain.sources import mqtt_metrics as metrics

if TYPE_CHECKING:
    from ringmain.sources.mapping import SimplePlan
    from ringmain.sources.mqtt_connection import Connection

TOPICS_MAX = 65_536
"""Topics known to the compiled path; all are forgotten, and learnt anew, when there are more."""

TOPIC_BYTES_MAX = 256
ARENA_BYTES = TOPICS_MAX * 64
PLANS_MAX = 256
KEY_BYTES_MAX = 64
ROWS_MAX = 16_384


Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]


class PlanSource(Protocol):
    """What the compiled path needs of `mapping.Mapper`."""

    max_ahead_ns: int

    def simple_plan(self, topic: str) -> SimplePlan | None:
        """How simple payloads of `topic` are read; None where that is not known or not simple."""
        ...


class TopicTable:
    """Topics with their series and plan, in arrays whose addresses `state` tells the compiled loops."""

    def __init__(self, mapper: PlanSource, topics_max: int = TOPICS_MAX) -> None:
        self._mapper = mapper
        self._topics_max = topics_max
        self._known: set[str] = set()
        self._arena_used = 0
        self._plan_codes: dict[tuple[bytes, bytes, int], int] = {}
        self._keys_used = 0
        self._slots: Ints = np.full(1 << (2 * topics_max - 1).bit_length(), -1, np.int64)
        self._topics: Ints = np.zeros((topics_max, kernel.TOPIC_COLUMNS), np.int64)
        self._arena: Bytes = np.zeros(min(ARENA_BYTES, topics_max * TOPIC_BYTES_MAX), np.uint8)
        self._plans: Ints = np.zeros((PLANS_MAX, kernel.PLAN_COLUMNS), np.int64)
        self._keys: Bytes = np.zeros(PLANS_MAX * 2 * KEY_BYTES_MAX, np.uint8)
        self.state: Ints = np.zeros(kernel.STATE_SIZE, np.int64)
        self.state[kernel.SLOTS] = self._slots.ctypes.data
        self.state[kernel.SLOT_MASK] = self._slots.size - 1
        self.state[kernel.TOPICS] = self._topics.ctypes.data
        self.state[kernel.ARENA] = self._arena.ctypes.data
        self.state[kernel.PLANS] = self._plans.ctypes.data
        self.state[kernel.KEYS] = self._keys.ctypes.data
        self.state[kernel.SEED] = secrets.randbits(63)

    def __len__(self) -> int:
        return len(self._known)

    def series_of(self, topic: str) -> int | None:
        """The series of a topic that is known, as the compiled loops find it."""
        raw = np.frombuffer(topic.encode(), np.uint8)
        index, _ = kernel.find_topic(raw.ctypes.data, raw.size, self.state)
        return int(self._topics[index, kernel.TOPIC_SERIES]) if index >= 0 else None

    def learn(self, topics: list[str]) -> None:
        """Take in those topics that the mapping has a simple plan for."""
        for topic in set(topics).difference(self._known):
            plan = self._mapper.simple_plan(topic)
            raw = topic.encode()
            if plan is None or len(raw) > TOPIC_BYTES_MAX:
                continue
            code = self._plan_code(plan)
            if code is not None:
                self._add(topic, raw, plan.series_id, code)

    def _add(self, topic: str, raw: bytes, series: int, code: int) -> None:
        if len(self._known) == self._topics_max or self._arena_used + len(raw) > self._arena.size:
            self._slots.fill(-1)
            self._known.clear()
            self._arena_used = 0
        data = np.frombuffer(raw, np.uint8)
        found, slot = kernel.find_topic(data.ctypes.data, len(raw), self.state)
        if found >= 0 or slot < 0:
            return
        index = len(self._known)
        self._arena[self._arena_used : self._arena_used + len(raw)] = data
        self._topics[index] = (self._arena_used, len(raw), series, code)
        self._slots[slot] = index
        self._arena_used += len(raw)
        self._known.add(topic)

    def _plan_code(self, plan: SimplePlan) -> int | None:
        """The row of the plan's keys and unit; None where keys need escapes in JSON, or rows have run out."""
        unit_ns = 0 if plan.time_unit is None else plan.time_unit.ns
        wanted = (plan.time_key, plan.value_key, unit_ns)
        code = self._plan_codes.get(wanted)
        if code is not None:
            return code
        plain = all(
            0 < len(key) <= KEY_BYTES_MAX and not any(byte < 32 or byte in b'"\\' for byte in key)
            for key in wanted[:2]
        )
        if not plain or len(self._plan_codes) == PLANS_MAX:
            return None
        code = self._plan_codes[wanted] = len(self._plan_codes)
        row = []
        for key in wanted[:2]:
            self._keys[self._keys_used : self._keys_used + len(key)] = np.frombuffer(key, np.uint8)
            row += [self._keys_used, len(key)]
            self._keys_used += len(key)
        self._plans[code] = (*row, unit_ns)
        return code


class FastReader:
    """The compiled path of one listener; its rows wait in columns until the batch takes them."""

    def __init__(self, mapper: PlanSource, *, topics_max: int = TOPICS_MAX, rows_max: int = ROWS_MAX) -> None:
        """Compiles, or loads what was compiled before: up to some seconds, the first time."""
        self._take = kernel.compiled()
        self._max_ahead_ns = mapper.max_ahead_ns
        self.table = TopicTable(mapper, topics_max)
        self._rows = 0
        self._rows_max = rows_max
        self._series: NDArray[np.uint32] = np.empty(rows_max, np.uint32)
        self._times: Ints = np.empty(rows_max, np.int64)
        self._values: NDArray[np.float64] = np.empty(rows_max, np.float64)
        acks: Bytes = np.empty(rows_max * 4, np.uint8)
        self._acks = memoryview(acks)  # type: ignore[arg-type]
        state = self.table.state
        state[kernel.SERIES] = self._series.ctypes.data
        state[kernel.TIMES] = self._times.ctypes.data
        state[kernel.VALUES] = self._values.ctypes.data
        state[kernel.ACKS] = acks.ctypes.data
        state[kernel.ROWS_MAX] = rows_max

    def read(self, connection: Connection, data: Bytes, at: int, end: int) -> int:
        """Take what can be taken of `data[at:end]`; the offset of the first packet that cannot."""
        gathering, device = connection.shared.gathering, connection.device
        gathering.begin()
        address = data.ctypes.data
        while True:
            row = self._rows
            behind, rows, replied = self._take(
                address,
                at,
                end,
                device.v5,
                device.packet_bytes_max,
                min(device.in_flight_left(), self._rows_max),
                self.table.state,
                row,
            )
            taken = rows - row
            if taken:
                # what the general path has gathered came before these rows
                gathering.close_messages()
                self._rows = rows
                connection.shared.intake.count(metrics.FAST_MESSAGES.name, taken)
                gathering.received += taken
                gathering.received_bytes += behind - at
                gathering.by_qos[0] += taken - replied
            if replied:
                gathering.by_qos[1] += replied
                if not connection.replies:
                    gathering.touched.append(connection)
                connection.replies += self._acks[: 4 * replied]
                if device.v5:
                    device.count_in_flight(replied)
                    device.releasing += replied
            at = behind
            if rows < self._rows_max or gathering.failed.done():
                return at
            gathering.flush()
            gathering.begin()

    # --- for the batch (`mqtt_gathering.RowSource`)

    def take_rows(self, arrival_ns: int) -> Columns | None:
        """The rows since the last call, flagged as `Mapper.map` does; None if there are none."""
        n, self._rows = self._rows, 0
        if not n:
            return None
        times = self._times[:n].copy()
        quality = np.zeros(n, np.uint16)
        quality[times > arrival_ns + self._max_ahead_ns] = int(Quality.CLOCK_FAILED)
        return Columns(self._series[:n].copy(), times, self._values[:n].copy(), quality)

    def learn(self, topics: list[str]) -> None:
        """These topics were just mapped by the general path."""
        self.table.learn(topics)
