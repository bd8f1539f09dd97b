"""Who may connect: a password file in mosquitto's form, checked off the event loop and in constant time.

A line is `user:$7$ITERATIONS$SALT$HASH` (mosquitto 2: PBKDF2-HMAC-SHA512, RFC 8018 5.2, standard base64), so
files of `mosquitto_passwd` work. Promises: an unknown user costs the same time as a wrong password; a
client that signed in before costs no key derivation again; only hashes are kept. The file is read again when
it changes. Left to others: which topics a user may publish to.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

ITERATIONS = 210_000
"""OWASP's figure for PBKDF2-HMAC-SHA512 (2023). Long random device passwords do with far fewer."""

ITERATIONS_MAX = 10_000_000
_SALT_BYTES = 12
_HASH_BYTES = 64
_LINE = re.compile(r"([^:]+):\$7\$([0-9]{1,8})\$([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+)")


def hash_password(password: str | bytes, *, iterations: int = ITERATIONS) -> str:
    """The part of a line behind `user:`, with a fresh salt; mosquitto 2 reads it too."""
    secret = password.encode() if isinstance(password, str) else password
    salt = secrets.token_bytes(_SALT_BYTES)
    derived = hashlib.pbkdf2_hmac("sha512", secret, salt, iterations, _HASH_BYTES)
    return f"$7${iterations}${base64.b64encode(salt).decode()}${base64.b64encode(derived).decode()}"


@dataclass(frozen=True, slots=True)
class _Entry:
    iterations: int
    salt: bytes
    derived: bytes


def parse_passwords(text: str, where: str) -> dict[str, _Entry]:
    """User name to hash. ValueError names file and line of what cannot be used; no line is skipped silently."""
    entries: dict[str, _Entry] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise ValueError(
                f"{where}:{number}: expected user:$7$ITERATIONS$SALT$HASH, found another form: "
                "write the entry with `ringmain password` or mosquitto_passwd (2.0 or newer)"
            )
        try:
            salt, derived = (base64.b64decode(part, validate=True) for part in match.group(3, 4))
        except binascii.Error as error:
            raise ValueError(f"{where}:{number}: expected base64 for salt and hash: {error}") from None
        iterations = int(match[2])
        if not 1 <= iterations <= ITERATIONS_MAX or not 16 <= len(derived) <= 64:
            raise ValueError(
                f"{where}:{number}: expected 1 to {ITERATIONS_MAX} iterations and a hash of 16 to 64 bytes"
            )
        if match[1] in entries:
            raise ValueError(f"{where}:{number}: user {match[1]!r} has a line already: remove one of the two")
        entries[match[1]] = _Entry(iterations, salt, derived)
    return entries


class Passwords:
    """The users of one password file.

    `known` is quick and belongs on the event loop; `verify` derives a key (milliseconds to seconds, without
    the GIL) and belongs on another thread. Both take what CONNECT brought.
    """

    def __init__(self, path: Path) -> None:
        """Reads the file; ValueError or OSError when it cannot be used."""
        self._path = path
        self._key = secrets.token_bytes(32)
        self._seen: dict[str, bytes] = {}
        self._stamp: tuple[int, int, int] | None = None
        self._entries: dict[str, _Entry] = {}
        self._nobody = _Entry(ITERATIONS, secrets.token_bytes(_SALT_BYTES), bytes(_HASH_BYTES))
        self.refresh()

    def refresh(self) -> bool:
        """Read the file again if it changed; True if so. A file that became unusable raises, the old users stay."""
        status = os.stat(self._path)
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        if stamp == self._stamp:
            return False
        entries = parse_passwords(self._path.read_text(encoding="utf-8"), str(self._path))
        self._entries, self._stamp, self._seen = entries, stamp, {}
        if entries:
            typical = max(entry.iterations for entry in entries.values())
            self._nobody = _Entry(typical, secrets.token_bytes(_SALT_BYTES), bytes(_HASH_BYTES))
        return True

    def known(self, user: str, password: bytes) -> bool:
        """Whether exactly this user and password were verified before, since the file was last read."""
        seen = self._seen.get(user)
        return seen is not None and hmac.compare_digest(seen, self._tag(user, password))

    def verify(self, user: str, password: bytes) -> bool:
        """Whether the password is the user's. Asked twice for the same login, it derives once."""
        if self.known(user, password):
            return True
        entry = self._entries.get(user)
        against = entry or self._nobody
        derived = hashlib.pbkdf2_hmac(
            "sha512", password, against.salt, against.iterations, len(against.derived)
        )
        equal = hmac.compare_digest(derived, against.derived)
        if equal and entry is not None and self._entries.get(user) is entry:
            self._seen[user] = self._tag(user, password)
            return True
        return False

    def _tag(self, user: str, password: bytes) -> bytes:
        name = user.encode()
        return hmac.digest(self._key, len(name).to_bytes(4, "big") + name + password, "sha256")
