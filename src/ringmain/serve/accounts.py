"""Whether everything that sources received is there or accounted for, worked out again and again while the node runs.

The keeper scans in a thread of its own, a little at a time and only what came since, so that nothing else waits for it.
It checks headers; `ringmain log account` checks bodies as well. What it finds is what the page shows as the equation,
and a difference is an alarm and the metric `ringmain_account_difference_rows`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from ringmain.log.interface import LogClosedError, LogError
from ringmain.log.ledger.accountant import Accountant, Published
from ringmain.log.ledger.result import RowAccount, SourceAccount
from ringmain.runtime.counters import Counters, Kind, declare
from ringmain.serve.shapes import AccountInfo, AccountsInfo, RowsInfo, UnknownInfo

INTERVAL_S = 5.0
"""Between two looks."""
WORK_S = 0.005
REST_S = 0.02
"""A long scan rests so long after each stretch of work."""
UNKNOWN_TOLD = 20

_DIFFERENCE = declare(
    "ringmain_account_difference_rows",
    Kind.GAUGE,
    "Rows of a source that are neither in the log nor accounted for; anything but 0 is an alarm.",
    labels=("source",),
    unit="rows",
)
_log = logging.getLogger(__name__)


class AccountKeeper:
    """Keeps the accounts of one log. `start` and `stop` once; `accounts` from any thread."""

    def __init__(
        self,
        reader: Published,
        counters: Counters,
        clock_ns: Callable[[], int],
        *,
        interval_s: float = INTERVAL_S,
    ) -> None:
        self._accountant = Accountant(reader, bodies=False)
        self._counters = counters
        self._clock_ns = clock_ns
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._working_since_s = 0.0
        self._made: AccountsInfo | None = None
        self._told: dict[str, int] = {}
        self._thread = threading.Thread(target=self._main, name="serve-accounts", daemon=True)

    def start(self) -> None:
        """Begin to scan."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def accounts(self) -> AccountsInfo | None:
        """The accounts as of the last look; None before the first is done."""
        return self._made

    def _main(self) -> None:
        while not self._stop.is_set():
            try:
                self._look()
            except (_StoppedError, LogClosedError):
                return
            except (LogError, OSError) as error:
                _log.warning("accounts cannot be kept at the moment: %s", error)
            except Exception:
                _log.exception("accounts cannot be kept at the moment")
            self._stop.wait(self._interval_s)

    def _look(self) -> None:
        now_ns = self._clock_ns()
        self._working_since_s = time.monotonic()
        self._accountant.advance(self._rest)
        accounts = self._accountant.accounts()
        for account in accounts:
            self._counters.cell(_DIFFERENCE, account.source).set(account.difference_rows)
            self._tell(account)
        counted = [_info(account) for account in accounts]
        self._made = AccountsInfo(now_ns // 1_000_000, self._accountant.closes, counted)

    def _tell(self, account: SourceAccount) -> None:
        difference = account.difference_rows + abs(account.difference_messages)
        if difference and difference != self._told.get(account.source, 0):
            _log.error(
                "the account of source %s does not close: %d rows and %d messages are neither stored nor accounted for; "
                "`ringmain log account` names the places",
                account.source,
                account.difference_rows,
                account.difference_messages,
            )
        self._told[account.source] = difference

    def _rest(self, _done: int, _all: int) -> None:
        if time.monotonic() - self._working_since_s < WORK_S:
            return
        if self._stop.wait(REST_S):
            raise _StoppedError
        self._working_since_s = time.monotonic()


class _StoppedError(Exception):
    """The keeper is to end in the middle of a scan."""


def _info(account: SourceAccount) -> AccountInfo:
    return AccountInfo(
        source=account.source,
        counted=account.counted,
        since_ms=account.first_ns // 1_000_000,
        received=account.received,
        accepted=account.accepted,
        rejected=account.rejected,
        ignored=account.ignored,
        dropped=account.dropped,
        difference_messages=account.difference_messages,
        rows=[_rows(rows) for rows in account.rows],
        unknown=[
            UnknownInfo(one.from_ns // 1_000_000, one.to_ns // 1_000_000, one.reason)
            for one in account.unknown[-UNKNOWN_TOLD:]
        ],
    )


def _rows(rows: RowAccount) -> RowsInfo:
    return RowsInfo(
        rows.stream,
        rows.handed_over,
        rows.found,
        rows.evicted,
        rows.quarantined,
        rows.cut,
        rows.lost,
        rows.conflict,
        rows.difference,
    )
