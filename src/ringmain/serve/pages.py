"""The page's files, as the web build left them: precompressed where the browser takes that, cached by their hashes.

Only files that lie in the directory are served, looked up by name in a listing: a path never reaches the file system.
"""

from __future__ import annotations

import mimetypes
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from ringmain.serve.access import Refused

STATIC = Path(__file__).parent / "static"

_ENCODINGS = (("br", ".br"), ("gzip", ".gz"))
_NOT_BUILT = b"""<!doctype html><meta charset="utf-8"><title>Ringmain</title>
<p>The page has not been built: run <code>make setup</code>, which needs Node.js.</p>
<p>The <a href="/openapi.json">API</a> works without it.</p>
"""


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    encodings: tuple[tuple[str, Path], ...]


class Pages:
    """Answers for everything that is not the API. A path without a file extension is a view of the page."""

    def __init__(self, directory: Path = STATIC) -> None:
        self._directory = directory
        self._files: dict[str, _File] = {}
        self._listed_ns = -1

    async def __call__(self, request: Request) -> Response:
        """The file, or the page for any of its views."""
        files = self._list()
        path = request.url.path.lstrip("/") or "index.html"
        file = files.get(path)
        if file is None and (path == "index.html" or "." not in path.rsplit("/", 1)[-1]):
            path = "index.html"
            file = files.get(path)
            if file is None:
                return Response(_NOT_BUILT, media_type="text/html", headers={"cache-control": "no-store"})
        if file is None:
            raise Refused(404, "not found", f"there is nothing at {request.url.path[:200]!r}")
        return self._answer(request, path, file)

    def _answer(self, request: Request, path: str, file: _File) -> Response:
        accepted = {
            part.split(";")[0].strip() for part in request.headers.get("accept-encoding", "").split(",")
        }
        chosen, encoding = file.path, None
        for name, packed in file.encodings:
            if name in accepted:
                chosen, encoding = packed, name
                break
        about = chosen.stat()
        hashed = path.startswith("assets/")
        headers = {
            "cache-control": "public, max-age=31536000, immutable" if hashed else "no-cache",
            "etag": f'"{about.st_mtime_ns:x}-{about.st_size:x}"',
            "vary": "accept-encoding",
        }
        if encoding is not None:
            headers["content-encoding"] = encoding
        if request.headers.get("if-none-match") == headers["etag"]:
            return Response(status_code=304, headers=headers)
        kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
        # small, and in the page cache: reading them takes less than a thread switch
        return Response(chosen.read_bytes(), media_type=kind, headers=headers)

    def _list(self) -> dict[str, _File]:
        """The files by name, listed again when a build replaced the directory or its index."""
        try:
            index = self._directory / "index.html"
            changed_ns = max(self._directory.stat().st_mtime_ns, index.stat().st_mtime_ns)
        except OSError:
            return {}
        if changed_ns != self._listed_ns:
            found = {}
            for path in sorted(self._directory.rglob("*")):
                if path.is_file() and path.suffix not in (".br", ".gz"):
                    packed = tuple(
                        (name, path.with_name(path.name + suffix))
                        for name, suffix in _ENCODINGS
                        if path.with_name(path.name + suffix).is_file()
                    )
                    found[path.relative_to(self._directory).as_posix()] = _File(path, packed)
            self._files, self._listed_ns = found, changed_ns
        return self._files
