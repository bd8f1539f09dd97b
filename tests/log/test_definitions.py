"""A stream is unreadable without its definition: there is a second copy of it when `create_stream` returns."""

from __future__ import annotations

import threading
from pathlib import Path

from ringmain.log import open_log
from ringmain.log.checkpoints import STATE, Checkpoints, restore_state
from ringmain.log.files import LocalFileSystem
from ringmain.log.interface import StreamKind
from tests.log.batches import NOTE


def _copied(directory: Path) -> set[str]:
    """The streams in the newest checkpoint."""
    newest = Checkpoints(LocalFileSystem(), directory).load(STATE)[0]
    restored = restore_state(newest)
    assert restored is not None
    return set(restored[0].streams)


def test_streams_that_many_make_at_once_are_in_a_checkpoint_when_they_are_there_and_share_it(
    tmp_path: Path,
) -> None:
    makers, each = 8, 6
    missing: list[str] = []
    with open_log(tmp_path) as log:
        begin = threading.Barrier(makers)

        def make(maker: int) -> None:
            begin.wait(60)
            for number in range(each):
                name = (
                    f"notes.{number}" if maker % 2 else f"notes.{maker}.{number}"
                )  # some make the same ones
                assert log.create_stream(name, StreamKind.ROW, NOTE).name == name
                if name not in _copied(tmp_path):
                    missing.append(name)

        threads = [threading.Thread(target=make, args=(maker,)) for maker in range(makers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        made = {state.stream.name for state in log.streams() if state.stream.name.startswith("notes.")}
        newest = max(int(path.stem.split("-")[-1], 16) for path in tmp_path.glob(f"{STATE}*.ckp"))
    assert missing == []
    assert len(made) == makers // 2 * each + each
    assert newest < len(made)
