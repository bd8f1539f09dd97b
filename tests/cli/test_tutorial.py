"""The tutorial, from start to end: its files are written, its commands run, and what it shows comes out."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.ports import free_port

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tutorial.md"
WITHIN_S = 120.0


@dataclass(frozen=True)
class Piece:
    """A fenced block. `told`: what stands behind its language."""

    language: str
    told: str
    text: str


def pieces(text: str) -> list[Piece]:
    found = re.findall(r"^```(\w+)(?: ([^\n]+))?\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [Piece(*piece) for piece in found]


def matches(shown: str, found: str) -> bool:
    """Whether every line that the page shows is there, in this order; `…` stands for anything."""
    lines = iter(found.splitlines())
    return all(
        any(
            re.fullmatch(".*".join(map(re.escape, wanted.rstrip().split("…"))), line.rstrip())
            for line in lines
        )
        for wanted in shown.splitlines()
    )


class Reader:
    """Somebody who does what the page says."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        program = directory / "bin"
        program.mkdir()
        (program / "ringmain").write_text(f'#!/bin/sh\nexec {sys.executable} -m ringmain.cli.main "$@"\n')
        (program / "ringmain").chmod(0o755)
        self.environment = {**os.environ, "PATH": f"{program}:{os.environ['PATH']}", "COLUMNS": "200"}
        self.node: subprocess.Popen[str] | None = None

    def write(self, name: str, text: str) -> None:
        path = self.directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def run(self, commands: str) -> str:
        done = subprocess.run(
            ["sh", "-e", "-c", commands],
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
            check=False,
        )
        assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def start(self, command: str) -> str:
        """A node; its first line."""
        self.node = subprocess.Popen(
            ["sh", "-c", f"exec {command}"],
            cwd=self.directory,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.node.stdout is not None
        return self.node.stdout.readline()

    def stop(self) -> None:
        if self.node is not None:
            self.node.send_signal(signal.SIGTERM)
            self.node.wait(60)
            assert self.node.stdout is not None
            self.node.stdout.close()

    def do(self, piece: Piece, shown: str | None) -> None:
        if piece.language != "sh":
            self.write(piece.told, piece.text)
        elif piece.told == "background":
            first = self.start(piece.text.strip())
            assert shown is None or matches(shown, first), first
        elif piece.told == "until":
            deadline = time.monotonic() + WITHIN_S
            assert shown is not None
            while not matches(shown, found := self.run(piece.text)):
                assert time.monotonic() < deadline, f"{piece.text}\n{found}\nand not\n{shown}"
        else:
            found = self.run(piece.text)
            assert shown is None or matches(shown, found), f"{piece.text}\n{found}\nand not\n{shown}"


@pytest.mark.skipif(shutil.which("mosquitto_pub") is None, reason="needs mosquitto_pub")
def test_the_tutorial_works_as_it_is_written(tmp_path: Path) -> None:
    text = PAGE.read_text().replace("1884", str(free_port())).replace("8080", str(free_port()))
    reader = Reader(tmp_path)
    steps = pieces(text)
    try:
        for step, following in zip(steps, [*steps[1:], None], strict=True):
            if step.language != "text":
                shown = following.text if following is not None and following.language == "text" else None
                reader.do(step, shown)
    finally:
        reader.stop()
    assert reader.node is not None
    assert reader.node.returncode == 0
