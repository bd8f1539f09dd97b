"""What a source says of itself in each of its appends: the row of stream `accounts`.

The counts are cumulative since the source's epoch began, so that a row that is lost takes no count with it: the next
one says how much came meanwhile, and where the frames beside it are fewer, how many are missing. A row is one
MessagePack array (codec 3), a third of the size of an Arrow message of one row, and much quicker to make.

Left to others: counting (`runtime`), adding up and comparing with what is stored (`ledger/accountant.py`).
"""

from __future__ import annotations

import msgspec
import pyarrow as pa

ACCOUNT = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("epoch", pa.uint64(), nullable=False),
        pa.field("messages", pa.int64(), nullable=False),
        pa.field("accepted", pa.int64(), nullable=False),
        pa.field("rejected", pa.int64(), nullable=False),
        pa.field("ignored", pa.int64(), nullable=False),
        pa.field("dropped", pa.int64(), nullable=False),
        pa.field("unacknowledged", pa.int64(), nullable=False),
        pa.field("readings", pa.int64(), nullable=False),
        pa.field("events", pa.int64(), nullable=False),
        pa.field("letters", pa.int64(), nullable=False),
        pa.field("reasons", pa.map_(pa.string(), pa.int64()), nullable=False),
    ]
)
"""The row as columns; see `AccountRow`."""


class AccountRow(msgspec.Struct, frozen=True, array_like=True):
    """One source's counts since its epoch began, the append that the row belongs to included.

    `messages` were received, before mapping. Each of them was `accepted` (gave a reading or an event), `rejected`
    (gave dead letters only), `ignored` (a rule says that it is not to be stored) or `dropped`. `unacknowledged`
    are those of the messages that nobody acknowledges (QoS 0). `readings`, `events` and `letters` are the rows
    handed over. `reasons`: dead letters by reason, those reasons alone that grew in this append.
    """

    source: str
    epoch: int
    messages: int = 0
    accepted: int = 0
    rejected: int = 0
    ignored: int = 0
    dropped: int = 0
    unacknowledged: int = 0
    readings: int = 0
    events: int = 0
    letters: int = 0
    reasons: tuple[tuple[str, int], ...] = ()

    @property
    def num_rows(self) -> int:
        """As of a record batch: one."""
        return 1

    @property
    def nbytes(self) -> int:
        """About the bytes of its body."""
        return 96


_DECODER = msgspec.msgpack.Decoder(AccountRow)


def decode_account(data: bytes | memoryview) -> AccountRow | None:
    """The row in the MessagePack bytes of a body; None if they are none."""
    try:
        return _DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
