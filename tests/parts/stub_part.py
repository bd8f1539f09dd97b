"""A process that behaves as a part does, or does not: `python stub_part.py BEHAVIOUR DIRECTORY FD PID`.

It writes what it is told, one word a line, into DIRECTORY/heard-BEHAVIOUR.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from pathlib import Path

from ringmain.parts import link as link_module
from ringmain.parts.link import Link, die_with
from ringmain.parts.messages import Drained, Failed, Ready, Refused, Running


def main(behaviour: str, directory: Path, channel: int, supervisor: int) -> int:
    heard = directory / f"heard-{behaviour}"

    link_module.REPORT_EVERY_S, link_module.CHANGES_EVERY_S = 0.1, 0.05

    def note(word: str) -> None:
        with heard.open("a") as file:
            file.write(word + "\n")

    note("started")
    link = Link(socket.socket(fileno=channel))
    die_with(supervisor, link.end)
    if behaviour == "mute":
        threading.Event().wait()
    if behaviour == "falls-silent":
        link.say(Running())
        threading.Event().wait()
    link.start()
    link.begin.wait()
    note("begin" if link.first else "begin-again")
    if behaviour == "refuses":
        link.say(Refused("the log is open in process 1"))
        return 1
    if behaviour == "never-works":
        threading.Event().wait()
    if behaviour == "server":
        link.take_peers_with(lambda peers: note("ready" if peers.ready else "peers"))
    link.say(Running())
    link.say(Ready({behaviour: f"{behaviour}:1"}))
    if behaviour == "dies-twice" and heard.read_text().count("started") <= 2:
        time.sleep(0.05)
        link.say(Failed("no more paper"))
        return 3
    link.drain.wait()
    if not link.stop.is_set():
        note("drain")
        link.say(Drained())
    if behaviour == "stubborn":
        threading.Event().wait()
    link.stop.wait()
    note("stop")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
