"""The page's files: `/`, `/client.js`, `/client.d.ts` and `/assets/…`, as they stand in `app/page`; no build step.

An edited file is served with the next request. What the browser has is not sent again (ETag, 304), and text is
compressed where the browser takes that.
"""

import asyncio
import gzip
import hashlib
import re
from pathlib import Path
from typing import NamedTuple

from aiohttp import ETag, hdrs, web

from app.domain.errors import NotFound
from app.web.security import COMMON, PAGE_HEADERS

FOLDER = Path(__file__).parents[1] / "page"

#: The only kinds of file that are served.
_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".ts": "text/plain",
    ".json": "application/json",
    ".txt": "text/plain",
    ".md": "text/markdown",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}
_COMPRESSED = {".html", ".css", ".js", ".ts", ".json", ".txt", ".md", ".svg"}
# Smaller than this, the headers cost more than is saved.
_COMPRESSED_FROM_BYTES = 512

# Each part begins with a letter or digit: no `..`, no hidden file, no empty part.
_NAME = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._-]*/)*[A-Za-z0-9][A-Za-z0-9._-]*")
# Another version of a library has another name, so a browser need not ask again.
_NEVER_CHANGES = re.compile(r"vendor/[a-z-]+-\d+\.\d+\.\d+\.js")
_CHECKED = "no-cache"
_KEPT = "public, max-age=31536000, immutable"


class _File(NamedTuple):
    """One file as it was at `stamp` (modification time and size): its bytes, and gzipped where that pays."""

    stamp: tuple[int, int]
    kind: str
    plain: bytes
    zipped: bytes | None
    tag: str


class PageRoutes:
    """Handlers for the files of a folder."""

    def __init__(self, folder: Path = FOLDER) -> None:
        """`folder` holds `index.html`, `client.js` and what they need."""
        self._folder = folder.resolve()
        self._files: dict[str, _File] = {}

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.get("/", self.home),
            web.get("/client.js", self.client),
            web.get("/client.d.ts", self.client_types),
            web.get("/assets/{name:.+}", self.asset),
        ]

    async def home(self, request: web.Request) -> web.Response:
        """`GET /`: the page."""
        return await self._send(request, "index.html")

    async def client(self, request: web.Request) -> web.Response:
        """`GET /client.js`: the browser client, for any page."""
        return await self._send(request, "client.js")

    async def client_types(self, request: web.Request) -> web.Response:
        """`GET /client.d.ts`: its types."""
        return await self._send(request, "client.d.ts")

    async def asset(self, request: web.Request) -> web.Response:
        """`GET /assets/…`: what the page is made of."""
        return await self._send(request, request.match_info["name"])

    async def _send(self, request: web.Request, name: str) -> web.Response:
        file = await asyncio.to_thread(self._load, name)
        zipped = file.zipped if _takes_gzip(request) else None
        tag = ETag(file.tag if zipped is None else f"{file.tag}-gzip")
        headers = {
            **(PAGE_HEADERS if file.kind == "text/html" else COMMON),
            "Cache-Control": _KEPT if _NEVER_CHANGES.fullmatch(name) else _CHECKED,
        }
        if file.zipped is not None:
            headers[hdrs.VARY] = hdrs.ACCEPT_ENCODING
        if any(known.value in (tag.value, "*") for known in request.if_none_match or ()):
            response = web.Response(status=304, headers=headers)
        else:
            charset = None if file.kind == "image/png" else "utf-8"
            body = file.plain if zipped is None else zipped
            response = web.Response(body=body, content_type=file.kind, charset=charset, headers=headers)
            if zipped is not None:
                response.headers[hdrs.CONTENT_ENCODING] = "gzip"
        response.etag = tag
        return response

    def _load(self, name: str) -> _File:
        """Return a file, read anew where it has changed. Raises NotFound for whatever is no file of the folder's."""
        suffix = Path(name).suffix
        if not _NAME.fullmatch(name) or suffix not in _TYPES:
            raise NotFound("The page has no such file.")
        try:
            path = (self._folder / name).resolve(strict=True)
            status = path.stat()
            if not path.is_file() or not path.is_relative_to(self._folder):
                raise NotFound("The page has no such file.")
            stamp = (status.st_mtime_ns, status.st_size)
            known = self._files.get(name)
            if known is not None and known.stamp == stamp:
                return known
            plain = path.read_bytes()
        except OSError:
            raise NotFound("The page has no such file.") from None
        pays = suffix in _COMPRESSED and len(plain) >= _COMPRESSED_FROM_BYTES
        zipped = gzip.compress(plain, mtime=0) if pays else None
        file = _File(stamp, _TYPES[suffix], plain, zipped, hashlib.sha256(plain).hexdigest()[:32])
        self._files[name] = file
        return file


def _takes_gzip(request: web.Request) -> bool:
    """Does the client accept gzip? `gzip;q=0` says that it does not."""
    for choice in request.headers.get(hdrs.ACCEPT_ENCODING, "").split(","):
        coding, _, weight = choice.partition(";")
        if coding.strip().lower() in ("gzip", "*"):
            return re.fullmatch(r"\s*q\s*=\s*0(\.0*)?\s*", weight) is None
    return False
