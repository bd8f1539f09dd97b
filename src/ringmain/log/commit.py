"""Group commit: one thread plans, writes, syncs and answers, in the order in which appends came.

When nothing is under way an append is committed at once; under load one sync covers everything that came
meanwhile. With a delay the thread first gathers for that long, so that fewer syncs cover the same appends: the
delay holds back the sync, and with it answers, readers and whoever is told. The thread sleeps while there is
nothing to do. Answers are given after the fdatasync that covers them has returned, and never before; readers
see a group at the same moment.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from ringmain.log.clock import ArrivalClock
from ringmain.log.control import ClockStepped
from ringmain.log.interface import LogClosedError, LogError, LogFailedError
from ringmain.log.planner import Plan, Planner
from ringmain.log.request import INTERNAL, Request
from ringmain.log.writer import JournalWriter, PreparedGroup

_logger = logging.getLogger(__name__)
_ROUND_BYTES = 16 << 20
_ROUND_REQUESTS = 2048
_GATHERED_BYTES = 256 << 10
"""A round of this size gains nothing by being gathered any longer: a sync costs less than its bytes."""
OVERHEAD_BYTES = 512
FORKED = "this log was opened by the process that this one was forked of, and is still its own: open or connect to it again here"


@dataclass(slots=True)
class _Failed:
    """An append that failed: what was handed over up to `noted_number` could not know of it in any way.

    Whoever hands over in a callback knows of it from then on; other threads do when its callback has returned, which
    was at `told_number`.
    """

    sequence: int
    noted_number: int
    told_number: int

    def known_from(self, request: Request) -> int:
        """The last number at which whoever handed over the request could not know."""
        return self.noted_number if request.in_callback else self.told_number


class CommitThread:
    """Takes requests from any thread and commits them."""

    def __init__(
        self,
        planner: Planner,
        writer: JournalWriter,
        clock: ArrivalClock,
        *,
        queue_bytes: int,
        first: list[Request],
        after_round: Callable[[int, int], None],
        delay_ns: int = 0,
    ) -> None:
        self._planner = planner
        self._writer = writer
        self._clock = clock
        self._queue: SimpleQueue[Request | Callable[[], None] | None] = SimpleQueue()
        self._queue_bytes = queue_bytes
        self._pending_bytes = 0
        self._room = threading.Condition()
        self._first = first
        self._after_round = after_round
        self._delay_s = delay_ns / 1e9
        self._hurry = threading.Event()
        self._closed = False
        self._pid = os.getpid()
        self._submitted = 0
        self._failed: dict[tuple[str, int], list[_Failed]] = {}
        self._refused: dict[
            tuple[str, int], int
        ] = {}  # lowest sequences refused in the round that is planned
        self._subscribers: tuple[Callable[[], None], ...] = ()
        self._subscribers_lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="log-commit", daemon=True)

    def start(self) -> None:
        """Begin to commit."""
        self._thread.start()

    @property
    def is_current(self) -> bool:
        """Whether the caller runs on this thread, where waiting for an answer would wait for ever."""
        return threading.current_thread() is self._thread

    @property
    def is_elsewhere(self) -> bool:
        """Whether the caller is a fork of the process that this thread runs in: nobody would ever answer it."""
        return os.getpid() != self._pid

    def submit(self, request: Request) -> None:
        """Hand over a request; blocks while the bounded queue is full, except on the commit thread itself.

        Raises LogError in a fork of the process.
        """
        if self.is_elsewhere:
            raise LogError(FORKED)
        size = request.size + OVERHEAD_BYTES
        with self._room:
            if not self.is_current:
                while (
                    self._pending_bytes
                    and self._pending_bytes + size > self._queue_bytes
                    and not self._closed
                ):
                    self._hurry.set()
                    self._room.wait()
            if not self._closed:
                self._submitted += 1
                request.number = self._submitted
                request.in_callback = self.is_current
                self._pending_bytes += size
                self._queue.put(request)
                if self._delay_s and self._is_urgent(request):
                    self._hurry.set()
                return
        if request.done is not None:
            request.done(None, LogClosedError("the log is closed: open it again to append"))

    def _is_urgent(self, request: Request) -> bool:
        """Whether the round need not be gathered any longer: it is full, or somebody waits for the log itself.

        That is whoever claims, creates a stream, closes, or removes segments.
        """
        return (
            (request.claim is INTERNAL and request.done is not None)
            or self._pending_bytes >= _GATHERED_BYTES
            or self._queue.qsize() >= _ROUND_REQUESTS
        )

    def call(self, function: Callable[[], None]) -> bool:
        """Run a function on the commit thread between rounds, when planned and durable state are the same.

        False, and it never runs, when the log is closed.
        """
        with self._room:
            if self._closed:
                return False
            self._queue.put(function)
            self._hurry.set()
            return True

    def on_durable(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back after each round in which something became durable."""
        with self._subscribers_lock:
            self._subscribers = (*self._subscribers, callback)

        def unsubscribe() -> None:
            with self._subscribers_lock:
                self._subscribers = tuple(one for one in self._subscribers if one is not callback)

        return unsubscribe

    def close(self) -> None:
        """Commit what was submitted, then stop. Idempotent."""
        with self._room:
            if self._closed:
                return
            self._closed = True
            self._room.notify_all()
            self._queue.put(None)
            self._hurry.set()
        self._thread.join()

    # -- the thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            item = self._queue.get()
            if self._delay_s:
                self._hurry.wait(self._delay_s)
                self._hurry.clear()
            requests: list[Request] = []
            size = 0
            stop = False
            calls: list[Callable[[], None]] = []
            while True:
                if item is None:
                    stop = True
                elif isinstance(item, Request):
                    requests.append(item)
                    size += item.size + OVERHEAD_BYTES
                else:
                    calls.append(item)
                if stop or calls or size >= _ROUND_BYTES or len(requests) >= _ROUND_REQUESTS:
                    if not self._queue.empty():  # what is left has waited long enough
                        self._hurry.set()
                    break
                try:
                    item = self._queue.get_nowait()
                except Empty:
                    break
            if requests:
                self._round(requests, size)
            for call in calls:
                try:
                    call()
                except Exception:
                    _logger.exception("a task between commits failed")
            if stop:
                return

    def _round(self, requests: list[Request], size: int) -> None:
        plans: list[Plan] = []
        failure: LogError | None = None
        durable = 0
        groups: list[PreparedGroup] = []
        owners: list[int] = []
        try:
            plans = self._plan(requests)
            for number, plan in enumerate(plans):
                if plan.group is not None:
                    groups.append(plan.group)
                    owners.append(number)
            before = self._planner.durable_lsn

            def published(count: int) -> None:
                nonlocal durable
                durable = count
                self._planner.durable_lsn = groups[count - 1].header.lsn

            carried = self._writer.carried_lsn
            if groups or carried:
                self._writer.commit(groups, published)
                self._planner.durable_lsn = max(self._planner.durable_lsn, carried)
        except LogError as error:
            failure = error
        except Exception as error:
            _logger.exception("commit failed")
            failure = LogFailedError(f"the log failed ({error!r}): nothing of the append is stored")
        moved = self._planner.durable_lsn
        if durable < len(groups):
            failed = [plans[number] for number in owners[durable:]]
            self._planner.take_back(failed)
            self._first = [plan.request for plan in failed if plan.request.done is None]
        with self._room:
            self._pending_bytes -= size
            self._room.notify_all()
        self._answer(
            requests, plans, owners[durable] if durable < len(owners) else len(plans), moved, failure
        )
        if durable:
            for callback in self._subscribers:
                self._guarded(callback)
            self._guarded(lambda: self._after_round(durable, moved - before))

    def _plan(self, requests: list[Request]) -> list[Plan]:
        planner = self._planner
        self._refused.clear()
        stamp = self._clock.stamp()
        first = self._first
        self._first = []
        if stamp.step is not None:
            record = ClockStepped(self._clock.segment, *stamp.step)
            _logger.warning("the wall clock was stepped by %.3f s", (stamp.step[1] - stamp.step[0]) / 1e9)
            first = [*first, Request(INTERNAL, 0, [], 0, OVERHEAD_BYTES, None, record=record)]
        return [
            self._behind_failed(request) or planner.plan(request, stamp) for request in (*first, *requests)
        ]

    # An append is refused when one of its producer's before it failed and this was not told yet when it was handed
    # over: stored without that one it would make the other's repeat a duplicate of something that is nowhere.

    def _behind_failed(self, request: Request) -> Plan | None:
        key = (request.claim.name, request.claim.fence)
        refused = None if request.refusal is None else request.refusal()
        if refused is None:
            before = self._failed_before(key, request)
            if before is None:
                return None
            refused = LogFailedError(
                f"claim {key[0]!r}: sequence {before}, handed over before, could not be stored: "
                f"{request.sequence} is not stored without it; send both again, in order"
            )
        # what comes behind it in this round must not be stored without it either
        self._refused[key] = min(request.sequence, self._refused.get(key, request.sequence))
        return Plan(request, None, error=refused, behind_failed=True)

    def _failed_before(self, key: tuple[str, int], request: Request) -> int | None:
        """The lowest sequence below the request's that failed without its owner knowing; None: there is none."""
        unknown = [self._refused[key]] if key in self._refused else []
        failed = self._failed.get(key)
        if failed is not None and request.number:
            failed = [one for one in failed if one.told_number >= request.number]
            if failed:
                self._failed[key] = failed
                unknown += [one.sequence for one in failed if request.number <= one.known_from(request)]
            else:
                del self._failed[key]
        before = min(unknown, default=request.sequence)
        return before if before < request.sequence else None

    def _note_failed(self, request: Request) -> _Failed | None:
        if request.claim is INTERNAL or request.claiming is not None:
            return None
        with self._room:
            failed = _Failed(request.sequence, self._submitted, self._submitted)
        self._failed.setdefault((request.claim.name, request.claim.fence), []).append(failed)
        return failed

    def _told(self, request: Request, failed: _Failed | None) -> None:
        """The callback of an append that failed has returned: what comes from now on may know of it."""
        if failed is not None and not request.waited:
            with self._room:
                failed.told_number = self._submitted

    def _answer(
        self,
        requests: list[Request],
        plans: list[Plan],
        failed_from: int,
        durable_lsn: int,
        failure: LogError | None,
    ) -> None:
        if not plans:
            for request in requests:
                failed = self._note_failed(request)
                self._done(request, None, failure)
                self._told(request, failed)
            return
        for number, plan in enumerate(plans):
            request = plan.request
            lost = plan.group is not None and number >= failed_from
            failed = None
            if lost or plan.behind_failed or (plan.error is None and plan.depends_lsn > durable_lsn):
                failed = self._note_failed(request)
            if lost:
                self._done(request, None, failure or LogFailedError("the log failed"))
            elif plan.error is not None:
                self._done(request, None, plan.error)
            elif plan.depends_lsn > durable_lsn:
                self._done(request, None, failure or LogFailedError("the log failed"))
            else:
                self._done(request, plan.answer, None)
            self._told(request, failed)

    def _done(self, request: Request, answer: Any, error: LogError | None) -> None:
        if request.done is None:
            if error is not None:
                _logger.debug("record of the log not written yet: %s", error)
            return
        try:
            request.done(answer, error)
        except Exception:
            _logger.exception("a callback of an append failed")

    @staticmethod
    def _guarded(callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception:
            _logger.exception("what follows a commit failed")
