"""A part of a node in a process of its own: `python -m ringmain.parts.process PART FILE VERBOSE FD PID`.

`parts.supervision` starts it, speaks with it over descriptor FD, and ends it. It tells that it lives before it imports
what it needs, which takes long on a busy machine. What is not on the way to an acknowledgement stands back: flows,
sinks and server have a lower priority than the intake, and are ended before it when memory runs out.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ringmain.parts.link import Link, die_with
from ringmain.parts.messages import Drained, Failed, Found, Ready, Refused, Running
from ringmain.runtime.counters import Counters
from ringmain.runtime.part_status import FLOWS, INTAKE, SERVER, SINKS
from ringmain.runtime.priority import run_promptly, yield_memory, yield_processor

if TYPE_CHECKING:
    from ringmain.config import NodeConfig

NICE = 12
"""Of flows and server, once they are there: a node's first start need not wait for them longer than it has to.

On two busy processors the intake has nine tenths of one where it wants it (sched(7)): with 5 it had two thirds, and waited as
long as it ran.
"""
SINKS_NICE = 15
"""What goes out stands back behind what comes in, and behind what is computed."""
ORPHAN_EVERY_S = 0.1
"""How often the log is tried that is still open in a process which ends because its supervisor is gone."""
OUT_OF_MEMORY_SCORES = {FLOWS: 200, SINKS: 300, SERVER: 400}

_logger = logging.getLogger("ringmain.parts")


def run_intake(file: Path, link: Link) -> None:
    """The journal with its socket, the sources, ticks and retention."""
    from ringmain.log.interface import LogLockedError
    from ringmain.parts.intake import IntakePart
    from ringmain.parts.opening import RefusedError, load_config, refusal
    from ringmain.parts.report import PartReport, encode_report
    from ringmain.runtime.vitals import watch_process

    config, warnings = load_config(file)
    if link.first:
        for warning in warnings:
            print(warning, file=sys.stderr)
    counters = Counters()
    watch_process(counters, INTAKE)
    try:
        told = False
        while True:
            try:
                part = IntakePart(config, counters)
                break
            except LogLockedError as error:
                if not _orphaned(config.data):
                    raise
                if not told:
                    told = True
                    _logger.warning("waiting for the process to end whose supervisor is gone: %s", error)
                if link.stop.wait(ORPHAN_EVERY_S):
                    raise
        try:
            part.serve_log()
            _name_supervisor(config.data)
        except BaseException:
            part.close()
            raise
    except Exception as error:
        refused = refusal(error, config.data)
        if refused is None:
            raise
        raise RefusedError(str(refused)) from error
    try:
        part.start()
        link.report_with(
            lambda: encode_report(PartReport(sources=part.sources(), metrics=counters.snapshot())),
            lambda: [(source.state, source.storage, source.address) for source in part.sources()],
        )
        link.say(Running())
        link.reload_with(_reloading(file, part.reload))
        addresses = part.wait_listening(link.drain)
        run_promptly()
        link.report_now()
        link.say(Ready(addresses))
        link.drain.wait()
        part.drain()
        link.say(Drained())
        link.stop.wait()
    finally:
        part.close()


def _name_supervisor(data: Path) -> None:
    """Have the lock file name the process that an operator would stop: the intake alone would be started again."""
    from ringmain.log.lock import LOCK_NAME

    with contextlib.suppress(OSError):
        handle = os.open(data / LOCK_NAME, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.pwrite(handle, f"{os.getppid():<20}\n".encode(), 0)
        finally:
            os.close(handle)


def _orphaned(data: Path) -> bool:
    """Whether the log is still open in a process whose supervisor is gone: that one is about to end."""
    from ringmain.log.lock import LOCK_NAME

    try:
        holder = int((data / LOCK_NAME).read_text())
        os.kill(holder, 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError):
        return False
    return False


def run_flows(file: Path, link: Link) -> None:
    """Every flow, over the socket of the log."""
    from ringmain.flows.at_work import left_behind
    from ringmain.log.socket.remote import connect_log
    from ringmain.parts.flows import FlowsPart
    from ringmain.parts.opening import load_config
    from ringmain.parts.report import PartReport, encode_report
    from ringmain.runtime.vitals import watch_process

    config, _ = load_config(file)
    counters = Counters()
    watch_process(counters, FLOWS)
    log = connect_log(config.data)
    try:
        for found in left_behind(config.data / "snapshots"):
            at = f"behind position {found.place}" if "/" not in found.place else f"at {found.place}"
            link.say(Found(f"flow {found.flow} was in a call of {found.step} {at}"))
        part = FlowsPart(config, log, counters)
        part.start()
        try:
            link.report_with(
                lambda: encode_report(PartReport(flows=part.views(), metrics=counters.snapshot())),
                part.states,
            )
            link.reload_with(_reloading(file, part.reload))
            link.say(Running())
            link.say(Ready({}))
            yield_processor(NICE)
            link.stop.wait()
        finally:
            part.stop()
    finally:
        log.close()


def _reloading(file: Path, take_over: Callable[[NodeConfig], list[str]]) -> Callable[[], None]:
    """Read the file again and take over what changed."""
    from ringmain.parts.opening import reloaded, tell

    def reload() -> None:
        changed = reloaded(file)
        if changed is not None:
            tell(take_over(changed))

    return reload


def run_sinks(file: Path, link: Link) -> None:
    """Every sink, over the socket of the log."""
    from ringmain.log.socket.remote import connect_log
    from ringmain.parts.opening import load_config
    from ringmain.parts.report import PartReport, encode_report
    from ringmain.parts.sinks import SinksPart
    from ringmain.runtime.priority import yield_disk
    from ringmain.runtime.vitals import watch_process

    config, _ = load_config(file)
    counters = Counters()
    watch_process(counters, SINKS)
    yield_disk()
    log = connect_log(config.data)
    try:
        part = SinksPart(config, log, counters)
        part.start()
        try:
            link.report_with(
                lambda: encode_report(PartReport(sinks=part.views(), metrics=counters.snapshot())),
                part.states,
            )
            link.reload_with(_reloading(file, part.reload))
            link.say(Running())
            link.say(Ready({}))
            yield_processor(SINKS_NICE)
            link.stop.wait()
        finally:
            part.stop()
    finally:
        log.close()


def run_server(file: Path, link: Link) -> None:
    """Page and API; what it tells of the other parts comes from the supervisor."""
    from ringmain.log.socket.remote import connect_log
    from ringmain.parts.opening import load_config
    from ringmain.parts.report import Board
    from ringmain.parts.server import LogFiles, ServerPart
    from ringmain.runtime.vitals import watch_log, watch_process

    config, _ = load_config(file)
    counters = Counters()
    board = Board(config, counters)
    watch_process(counters, SERVER)
    log = connect_log(config.data)
    try:
        watch_log(counters, log)
        files = LogFiles(config.data, log)
        part = ServerPart(config, log, counters, lambda: board.status(files.view))
        link.take_peers_with(board.take)
        try:

            def take_over(changed: NodeConfig) -> list[str]:
                board.reload(changed)
                return part.reload(changed, link.stop)

            link.reload_with(_reloading(file, take_over))
            link.say(Running())
            link.say(Ready(part.wait_listening(link.stop)))
            yield_processor(NICE)
            link.stop.wait()
        finally:
            part.stop()
    finally:
        log.close()


NEEDED = {
    INTAKE: ("ringmain.parts.intake",),
    FLOWS: ("ringmain.parts.flows", "ringmain.log.socket.remote"),
    SINKS: ("ringmain.parts.sinks", "ringmain.log.socket.remote"),
    SERVER: ("ringmain.parts.server", "ringmain.log.socket.remote", "ringmain.serve.server"),
}
PARTS: dict[str, Callable[[Path, Link], None]] = {
    INTAKE: run_intake,
    FLOWS: run_flows,
    SINKS: run_sinks,
    SERVER: run_server,
}


def main(name: str, file: Path, verbose: bool, channel: int, supervisor: int) -> int:
    """Run the part until told to end, or until the supervisor is gone; the exit status."""
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    if name != INTAKE:
        yield_memory(OUT_OF_MEMORY_SCORES[name])
    os.set_inheritable(channel, False)
    link = Link(socket.socket(fileno=channel))
    die_with(supervisor, link.end)
    link.start()
    for module in NEEDED[name]:  # while the intake opens the log
        with contextlib.suppress(ImportError):  # is told where it is needed
            importlib.import_module(module)
    from ringmain.log.interface import LogError
    from ringmain.parts.opening import RefusedError

    link.begin.wait()
    if name != INTAKE and not link.first:
        yield_processor(NICE)
    if link.stop.is_set():
        return 0
    try:
        PARTS[name](file, link)
    except RefusedError as error:
        link.say(Refused(str(error)))
        return 1
    except (LogError, OSError) as error:
        link.say(Failed(str(error)))
        return 1
    except Exception as error:
        _logger.exception("the process %r ends", name)
        link.say(Failed(f"{type(error).__name__}: {error}"))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3] == "True", int(sys.argv[4]), int(sys.argv[5])))
