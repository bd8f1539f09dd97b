"""One simulator process, ruled over a pipe: `python -m ringmain.sim PLAN`, the plan as JSON (`gateways.Plan`).

Standard input takes one command a line: `start EPOCH_MS`, then `stop`. Standard output gives one JSON object
a line: `{"event": "prepared"}` when the fleet stands, `"progress"` once a second, and at the end `"tally"`,
after every message was acknowledged (or 30 s passed, which the tally then says). When standard input ends
without `stop`, whoever started the process is gone, and it ends at once.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from typing import Any

import msgspec

from ringmain.sim.gateways import Gateways, Plan
from ringmain.sim.profiles import ProfileDataMissingError

DRAIN_S = 30.0


def main() -> int:
    """Run the plan. Status 0 after a `stop`, 1 when it could not begin, 3 when the pipe ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if len(sys.argv) != 2:
        print("expected one argument, the plan as JSON: python -m ringmain.sim PLAN", file=sys.stderr)
        return 1
    try:
        gateways = Gateways(msgspec.json.decode(sys.argv[1], type=Plan))
    except (ProfileDataMissingError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return asyncio.run(_work(gateways))


async def _work(gateways: Gateways) -> int:
    commands = await _standard_input()
    _say(event="prepared", series=len(gateways.fleet.points), rate=gateways.fleet.readings_per_s())
    command = (await commands.readline()).split()
    if len(command) != 2 or command[0] != b"start":
        return 3
    start_ms = int(command[1])
    await asyncio.sleep(max(0.0, start_ms / 1000 - time.time()))
    gateways.start(start_ms)
    stop = asyncio.Event()
    work = asyncio.create_task(gateways.run(stop))
    progress = asyncio.create_task(_progress(gateways))
    line = asyncio.create_task(commands.readline())
    await asyncio.wait((work, line), return_when=asyncio.FIRST_COMPLETED)
    if work.done():
        await work
    if (await line).strip() != b"stop":
        return 3
    stop.set()
    await work
    progress.cancel()
    tally = await gateways.finish(DRAIN_S)
    _say(event="tally", skipped=gateways.skipped, cpu_s=time.process_time(), tally=tally)
    return 0


async def _standard_input() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def _progress(gateways: Gateways) -> None:
    while True:
        await asyncio.sleep(1.0)
        tally = gateways.balance()
        _say(
            event="progress",
            messages=tally.messages,
            readings=tally.readings,
            backlog=gateways.backlog,
            losses=tally.losses,
            last_error=tally.last_error,
        )


def _say(**fields: Any) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(fields) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
