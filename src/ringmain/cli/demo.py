"""`ringmain demo`: a small municipal utility, simulated by MQTT clients in processes of their own.

The command writes a configuration and a series catalogue, starts the node with them as anybody would
(`ringmain run`), starts the simulators, and shows the page. With `--seconds` it ends by itself, holds the
node's counts, asked for over HTTP, against the simulators' tally, and exits 0 only when they agree.
"""

from __future__ import annotations

import secrets
import shutil
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
import webbrowser
from pathlib import Path

import click
import msgspec

from ringmain.cli.demo_processes import ChildFailedError, NodeProcess, SimulatorProcess
from ringmain.cli.demo_settings import CONFIG_NAME, Settings
from ringmain.cli.main import Refusal
from ringmain.cli.run import stop_on_signal
from ringmain.config_layout import DEFAULT_LAYOUT, Layout
from ringmain.model.duration import parse_duration
from ringmain.serve.settings import is_loopback, parse_listen
from ringmain.sim import tally as tallies
from ringmain.sim.compare import NODE_COUNTS_SQL, Comparison, NodeCounts, compare, table
from ringmain.sim.fleet import HOUSEHOLDS_MIN, build_fleet, write_catalogue
from ringmain.sim.gateways import Plan
from ringmain.sim.profiles import ProfileDataMissingError, load_profiles
from ringmain.sim.schedule import PROGRAMME_S, Schedule, build_schedule
from ringmain.sim.tally import Tally

SIMULATORS = 2
MQTT_PORT = 1884
HTTP_LISTEN = "127.0.0.1:8080"
READY_S = 60.0
SETTLED_S = 5.0


@click.command(
    epilog="\b\nExamples:\n  ringmain demo\n  ringmain demo --rate 10000\n"
    "  ringmain demo --seconds 90 --no-open --listen 127.0.0.1:8123"
)
@click.option(
    "--seconds", type=click.FloatRange(min=5), help="Run for so long, then compare and exit 0 or 1."
)
@click.option("--no-open", is_flag=True, help="Do not open the browser.")
@click.option(
    "--listen",
    metavar="HOST:PORT",
    help=f"Address of the page and the API.  [default: {HTTP_LISTEN}, or a free port if that is taken]",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("data/demo"),
    show_default=True,
    help="Directory for log, configuration, catalogue, schedule and tally.",
)
@click.option("--keep", is_flag=True, help="Keep what an earlier demo logged there (not with --seconds).")
@click.option(
    "--rate",
    type=click.FloatRange(min=100, max=20_000),
    default=3000,
    show_default=True,
    help="Readings a second, of all devices.",
)
@click.option(
    "--households",
    type=click.IntRange(min=HOUSEHOLDS_MIN, max=20_000),
    default=2000,
    show_default=True,
    help="Households; shops and gas meters follow in proportion.",
)
@click.option(
    "--seed", type=click.IntRange(min=0, max=2**31), default=1, show_default=True, help="Another town."
)
@click.option(
    "--layout",
    type=click.Choice([layout.value for layout in Layout]),
    default=DEFAULT_LAYOUT.value,
    show_default=True,
    help="Whether the node is several processes or one.",
)
def demo(
    seconds: float | None,
    no_open: bool,
    listen: str | None,
    data: Path,
    keep: bool,
    rate: float,
    households: int,
    seed: int,
    layout: str,
) -> None:
    """A small municipal utility, simulated, live in the browser.

    Households, shops, a PV park, a heat network and three substations send readings over MQTT; faults are
    injected on the schedule that is printed. Ends with Ctrl-C, or after --seconds with a comparison of the
    node's counts and the devices' own: exit status 0 only when they agree.
    """
    if keep and seconds is not None:
        raise click.UsageError("--keep cannot be combined with --seconds: the comparison needs an empty log")
    address = listen or _free_address(HTTP_LISTEN)
    try:
        host, _ = parse_listen(address)
    except ValueError as error:
        raise click.UsageError(f"--listen: {error}") from None
    token = None if is_loopback(host) else secrets.token_hex(24)
    settings = Settings(
        address,
        token,
        data,
        households,
        rate,
        seed,
        seconds,
        not no_open and seconds is None,
        Layout(layout),
    )
    _prepare_directory(settings, keep=keep)
    with stop_on_signal() as stop:
        try:
            agreed = _Demo(settings, stop).run()
        except (ChildFailedError, ProfileDataMissingError) as error:
            raise Refusal(str(error)) from None
    if not agreed:
        sys.exit(1)


def _prepare_directory(settings: Settings, *, keep: bool) -> None:
    """Make the directory; remove an earlier demo's log, and nothing that a demo did not write."""
    data = settings.data
    data.mkdir(parents=True, exist_ok=True)
    log = data / "log"
    if log.exists() and not keep:
        if not (data / CONFIG_NAME).exists():
            raise Refusal(f"{log} was not written by a demo: name another directory with --data")
        shutil.rmtree(log)


class _Demo:
    """One run, from the empty directory to the verdict."""

    def __init__(self, settings: Settings, stop: threading.Event) -> None:
        self.settings = settings
        self.stop = stop
        self.schedule: Schedule = build_schedule(settings.seconds)
        self.simulators: list[SimulatorProcess] = []
        self.node: NodeProcess | None = None
        self.began = time.monotonic()

    def run(self) -> bool:
        """True unless counts differ. Raises ChildFailedError, ProfileDataMissingError."""
        try:
            self._start()
            self._show()
            tally = self._finish_devices()
            if self.settings.seconds is None or self.node is None:
                return self._farewell(tally)
            return self._verdict(tally)
        finally:
            for simulator in self.simulators:
                simulator.kill()
            if self.node is not None:
                self.node.stop()

    def _start(self) -> None:
        settings, data = self.settings, self.settings.data
        load_profiles(data / "profiles.npz")
        mqtt_port = _free_port("127.0.0.1", MQTT_PORT if settings.seconds is None else 0)
        config_file = data / CONFIG_NAME
        config_file.write_text(settings.configuration(config_file, mqtt_port), encoding="utf-8")
        fleet = build_fleet(settings.households, settings.rate, settings.seed)
        write_catalogue(fleet, data / "series.csv")
        self.node = NodeProcess(config_file, data / "node.log")
        for part in range(SIMULATORS):
            plan = Plan(
                profiles=str(data / "profiles.npz"),
                host="127.0.0.1",
                port=mqtt_port,
                households=settings.households,
                rate=settings.rate,
                seed=settings.seed,
                seconds=settings.seconds,
                part=part,
                parts=SIMULATORS,
            )
            self.simulators.append(SimulatorProcess(plan, data / f"simulator-{part}.log"))
        for simulator in self.simulators:
            simulator.wait_prepared(READY_S)
        ready = self.node.wait_ready(READY_S)
        self.start_ms = int(time.time() * 1000) + 100
        (data / "schedule.json").write_bytes(
            msgspec.json.encode({"start_ms": self.start_ms, "schedule": self.schedule})
        )
        for simulator in self.simulators:
            simulator.start(self.start_ms)
        click.echo(
            f"{len(fleet.points):,} series of {settings.households:,} households, shops, gas meters, a PV park, "
            f"a heat network and 3 substations; {len(fleet.gateways)} MQTT connections, "
            f"{fleet.readings_per_s():,.0f} readings/s"
        )
        click.echo(f"node: {ready}")
        click.echo(f"page: {settings.url} (live {time.monotonic() - self.began:.1f} s after the command)")
        if settings.token:
            click.echo(f"token: {settings.token}")
        click.echo("\n" + self.schedule.table() + "\n")
        if settings.open_browser:
            webbrowser.open(settings.url)
        if settings.seconds is None:
            click.echo("Ctrl-C ends it.")

    def _show(self) -> None:
        """Until told to stop, or time is up: say which fault begins and ends, and how it goes."""
        announced: set[tuple[int, int, bool]] = set()
        live = sys.stderr.isatty()
        while not self.stop.wait(0.25):
            since_s = time.time() - self.start_ms / 1000
            self._announce(since_s, announced)
            assert self.node is not None
            self.node.check()
            for simulator in self.simulators:
                simulator.check()
            if live:
                readings = sum(s.progress.readings for s in self.simulators)
                backlog = sum(s.progress.backlog for s in self.simulators)
                click.echo(
                    f"\r{since_s:6.0f} s  {readings:,} readings acknowledged, {backlog:,} messages under way  ",
                    err=True,
                    nl=False,
                )
            if self.settings.seconds is not None and since_s >= self.settings.seconds:
                break
        if live:
            click.echo("", err=True)

    def _announce(self, since_s: float, announced: set[tuple[int, int, bool]]) -> None:
        cycle, second = self.schedule.place_in_cycle(since_s)
        for number, fault in enumerate(self.schedule.faults):
            for ending, at_s in ((False, fault.start_s), (True, fault.last_s)):
                if second >= at_s and (cycle, number, ending) not in announced:
                    announced.add((cycle, number, ending))
                    what = f"{fault.kind} ends" if ending else f"{fault.kind}: {fault.what}"
                    click.echo(f"\r{since_s:6.1f} s  {what}")

    def _finish_devices(self) -> Tally:
        """End the simulators; their tally goes to tally.json."""
        for simulator in self.simulators:
            simulator.stop()
        total = tallies.add(simulator.wait_tally(60.0) for simulator in self.simulators)
        (self.settings.data / "tally.json").write_bytes(msgspec.json.encode(total))
        return total

    def _farewell(self, tally: Tally) -> bool:
        click.echo(
            f"{tally.readings:,} readings in {tally.messages:,} messages acknowledged. Ask on: "
            f'ringmain sql "select count(*) from readings" --data {self.settings.data / "log"}'
        )
        return True

    def _verdict(self, tally: Tally) -> bool:
        """Compare until each line agrees or never will, or nothing has changed for longer than windows take to close."""
        seconds = self.settings.seconds or 0.0
        _, idle = self.settings.grace_and_idle
        self._say_kinds(tally)
        click.echo(f"waiting until the windows of silent devices close (idle {idle})")
        revisions_min = 1 if seconds >= PROGRAMME_S else 0
        patience_s = parse_duration(idle) / 1e9 + SETTLED_S
        last: list[Comparison] = []
        changed = time.monotonic()
        while True:
            lines = compare(tally, self._node_counts(), revisions_min=revisions_min)
            if lines != last:
                last, changed = lines, time.monotonic()
            settled = all(line.agrees or line.exceeded for line in lines)
            if settled or time.monotonic() - changed > patience_s:
                break
            if self.stop.wait(0.5):
                break
        (self.settings.data / "comparison.json").write_bytes(msgspec.json.encode(lines))
        click.echo(table(lines))
        return _conclude(lines)

    def _say_kinds(self, tally: Tally) -> None:
        click.echo(f"{tally.messages:,} messages acknowledged on {tally.connects} connections:")
        for kind, counts in zip(tallies.Kind, tally.counts, strict=True):
            name = kind.name.lower().replace("_", " ")
            letters = f", {counts.letters:,} dead letters to expect" if counts.letters else ""
            click.echo(f"  {name:14} {counts.messages:9,} messages {counts.readings:9,} readings{letters}")
        if tally.resent:
            click.echo(
                f"  {tally.resent:,} sent again after {tally.losses} lost connections: {tally.last_error}"
            )
        skipped = sum(simulator.skipped for simulator in self.simulators)
        if skipped:
            click.echo(f"  {skipped:,} readings never taken: the devices' buffers were full")
        cpu_s = sum(simulator.cpu_s for simulator in self.simulators)
        click.echo(f"  simulators used {cpu_s:.1f} s of processor time")

    def _node_counts(self) -> NodeCounts:
        body = msgspec.json.encode({"query": NODE_COUNTS_SQL})
        headers = {"Content-Type": "application/json"}
        if self.settings.token:
            headers["Authorization"] = f"Bearer {self.settings.token}"
        request = urllib.request.Request(self.settings.url + "api/v1/sql", body, headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return NodeCounts.of_row(msgspec.json.decode(answer.read())["rows"][0])
        except urllib.error.HTTPError as error:
            text = error.read().decode("utf-8", "replace")
            raise ChildFailedError(f"expected the node's counts, found HTTP {error.code}: {text}") from None
        except OSError as error:
            assert self.node is not None
            self.node.check()
            raise ChildFailedError(f"expected the node's counts from {self.settings.url}: {error}") from None


def _conclude(lines: list[Comparison]) -> bool:
    differing = [line.what for line in lines if not line.agrees]
    if differing:
        click.echo(f"the node and the devices DISAGREE: {', '.join(differing)}")
        return False
    click.echo("the node and the devices agree")
    return True


def _free_port(host: str, preferred: int) -> int:
    """The preferred port where it can be bound now, else any free one."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ChildFailedError(f"expected a free port on {host}, found none")


def _free_address(preferred: str) -> str:
    host, port = parse_listen(preferred)
    return f"{host}:{_free_port(host, port)}"
