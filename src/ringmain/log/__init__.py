"""Where everything is kept: the `Log` interface and the embedded journal."""

from ringmain.log.follower import JournalReader, open_reader
from ringmain.log.journal import Journal, open_log
from ringmain.log.socket.remote import RemoteLog, connect_log

__all__ = ["Journal", "JournalReader", "RemoteLog", "connect_log", "open_log", "open_reader"]
