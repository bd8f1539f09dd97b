"""What a node has stored, compared with what its clients were told, and with a fold from zero."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ringmain
from ringmain.flows.aggregates import BASIC
from ringmain.flows.settings import WindowSettings
from ringmain.log import open_log, open_reader
from ringmain.log.ledger.accountant import Accountant
from tests.conftest import wait_until
from tests.flows.real_log import emitted, run_to_end, runner, undisturbed
from tests.node.running import RunningNode

CONFIGURATION = """\
[node]
name = "hostile"
data = "{data}"

[log]
segment = "2MiB"
{log}

[sources.field]
type   = "mqtt-listener"
listen = "127.0.0.1:{port}"

[[sources.field.map]]
topic  = "meters/{{meter}}/{{quantity}}"
series = "{{meter}}/{{quantity}}"
device = "{{meter}}"
time   = "t"
value  = "v"

[flows.minute]
from   = "readings"
window = "1m"
values = ["count", "sum", "mean", "min", "max", "first", "last"]
grace  = "10s"
idle   = "2s"
to     = "readings.1m"

[serve]
listen = "127.0.0.1:{http}"
"""

FLOW = WindowSettings(
    from_="readings", window="1m", values=list(BASIC), grace="10s", idle="2s", to="readings.1m"
)
"""The flow of `CONFIGURATION`."""

Message = tuple[str, int, float]


def configuration(
    *, port: int, http: int, data: Path | str = "data", log: str = "", catalogue: str = ""
) -> str:
    """A node with a listener, a flow and a server; `log` and `catalogue` are further lines of those tables."""
    text = CONFIGURATION.format(port=port, http=http, data=data, log=log)
    return text + (f"\n[catalogue]\n{catalogue}\n" if catalogue else "")


def query(data: Path, statement: str) -> list[dict[str, Any]]:
    """Rows of a statement over the log in `data`, read as any other process would."""
    with ringmain.open(data, read_only=True) as log:
        rows: list[dict[str, Any]] = log.sql(statement).to_pylist()
        return rows


def wait_for_windows(data: Path) -> None:
    """Wait until every stored reading is in a window."""
    windowed, stored = 'select sum(count) from "readings.1m"', "select count(*) from readings_current"

    def caught_up() -> bool:
        row = query(data, f"select ({windowed}) as windowed, ({stored}) as stored")[0]
        return bool(row["windowed"] == row["stored"])

    wait_until(caught_up, 60, "every reading in a window", interval_s=0.3)


def assert_all_stored(data: Path, acknowledged: Iterable[Message], allowed: Iterable[Message] = ()) -> None:
    """Everything acknowledged is in `readings_current`, and nothing else but what is `allowed`."""
    told = {(topic.removeprefix("meters/"), t, v) for topic, t, v in acknowledged}
    maybe = {(topic.removeprefix("meters/"), t, v) for topic, t, v in allowed}
    rows = query(data, "select series, epoch_ms(time) as ms, value from readings_current")
    stored = {(row["series"], row["ms"], row["value"]) for row in rows}
    assert not told - stored, f"{len(told - stored)} of {len(told)} acknowledged readings are missing"
    assert not stored - told - maybe, f"{len(stored - told - maybe)} readings that nobody was told of"


def assert_windows_equal_an_undisturbed_fold(data: Path, empty: Path) -> None:
    """The window stream of a stopped node is that of a fold from zero over the stored inputs."""
    with open_log(data) as log:
        flow = runner(log, data, FLOW)
        flow.start()
        run_to_end(log, flow)
        assert repr(emitted(log, FLOW)) == repr(undisturbed(log, empty, FLOW))


def assert_account_closes(data: Path) -> None:
    """Everything that sources received is stored or accounted for, by scanning."""
    with open_reader(data) as reader:
        accountant = Accountant(reader)
        accountant.advance()
        assert [one.source for one in accountant.accounts() if one.counted]
        assert accountant.closes, [one for one in accountant.accounts() if not one.closes]


def assert_no_traceback(node: RunningNode) -> None:
    """Nothing that the node wrote to standard error is a traceback."""
    errors = node.stderr()
    at = errors.find("Traceback")
    assert at < 0, errors[max(0, at - 500) : at + 3000]


def http_json(http: int, path: str, body: Any = None) -> Any:
    """An answer of the server at the port."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{http}{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def metric(http: int, name: str) -> float:
    """The sum of a metric over its labels."""
    address = f"http://127.0.0.1:{http}/metrics"
    with urllib.request.urlopen(address, timeout=60) as answer:
        text = answer.read().decode()
    values = re.findall(rf"^{re.escape(name)}(?:\{{[^}}]*\}})? (\S+)$", text, re.MULTILINE)
    assert values, f"no metric {name}"
    return sum(float(value) for value in values)


def pss_bytes(node: RunningNode) -> int:
    """Proportional set size of the node's processes, without those that run SQL."""
    total = 0
    for pid in (node.process.pid, *node.parts().values()):
        found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
        assert found is not None
        total += int(found[1]) * 1024
    return total
