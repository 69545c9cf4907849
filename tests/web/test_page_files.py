"""The page's files: fresh after an edit, not sent twice, compressed where it pays, and nothing else from the disk."""

import asyncio
import gzip
import hashlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from app.domain.measures import Measures
from app.web.access import Access
from app.web.page import FOLDER, PageRoutes
from app.web.problems import problems
from tests.conftest import Client

ROOT = FOLDER.parents[1]
VENDOR = FOLDER / "vendor"


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    """A page of our own to edit, beside a file that is nobody's business."""
    (tmp_path / "secret.js").write_text("secret")
    page = tmp_path / "page"
    (page / "vendor").mkdir(parents=True)
    (page / "index.html").write_text("<!doctype html><title>one</title>")
    (page / "style.css").write_text("p { color: red }" + " " * 2000)
    (page / "vendor" / "thing-1.2.3.js").write_text("export default 1")
    (page / ".hidden.js").write_text("hidden")
    (page / "private.key").write_text("private")
    (page / "link.js").symlink_to(tmp_path / "secret.js")
    return page


@pytest.fixture
async def browser(folder: Path) -> AsyncIterator[Client]:
    app = web.Application(middlewares=[Access(Measures()).middleware, problems])
    app.router.add_routes(PageRoutes(folder).routes())
    async with TestClient(TestServer(app), auto_decompress=False) as client:
        yield client


async def test_an_edited_file_is_served_with_the_next_request(browser: Client, folder: Path) -> None:
    async with browser.get("/") as response:
        assert (await response.text(), response.headers["Cache-Control"]) == (
            "<!doctype html><title>one</title>",
            "no-cache",
        )
        tag = response.headers["ETag"]
    async with browser.get("/", headers={"If-None-Match": tag}) as response:
        assert (response.status, await response.read(), response.headers["ETag"]) == (304, b"", tag)
        assert "Content-Security-Policy" in response.headers
    (folder / "index.html").write_text("<!doctype html><title>two</title>")
    async with browser.get("/", headers={"If-None-Match": tag}) as response:
        assert (response.status, await response.text()) == (200, "<!doctype html><title>two</title>")
        assert response.headers["ETag"] != tag
    (folder / "style.css").unlink()
    async with browser.get("/assets/style.css") as response:
        assert response.status == 404


async def test_an_edit_that_keeps_the_size_is_seen_too(browser: Client, folder: Path) -> None:
    async with browser.get("/assets/style.css") as response:
        before = response.headers["ETag"]
    file = folder / "style.css"
    file.write_text(file.read_text().replace("red", "tan"))
    os.utime(file, ns=(1, 1))  # also where an older file is put in its place
    async with browser.get("/assets/style.css") as response:
        assert response.headers["ETag"] != before
        assert b"tan" in gzip.decompress(await response.read())


@pytest.mark.parametrize(
    ("accepts", "zipped"),
    [("gzip, deflate, br", True), ("*", True), ("identity", False), ("gzip;q=0", False), ("gzip; q=0.5", True)],
)
async def test_text_is_compressed_where_the_browser_takes_it(
    browser: Client, folder: Path, accepts: str, zipped: bool
) -> None:
    plain = (folder / "style.css").read_bytes()
    async with browser.get("/assets/style.css", headers={"Accept-Encoding": accepts}) as response:
        body = await response.read()
        assert response.headers["Vary"] == "Accept-Encoding"
        assert ("Content-Encoding" in response.headers) is zipped
        assert (gzip.decompress(body) if zipped else body) == plain
        assert (len(body) < len(plain)) is zipped
        tag = response.headers["ETag"]
    headers = {"Accept-Encoding": accepts, "If-None-Match": tag}
    async with browser.get("/assets/style.css", headers=headers) as response:
        assert response.status == 304
    other = "identity" if zipped else "gzip"
    async with browser.get("/assets/style.css", headers=headers | {"Accept-Encoding": other}) as response:
        assert response.status == 200  # another form of the file, so another tag


async def test_what_is_small_is_not_compressed(browser: Client) -> None:
    async with browser.get("/", headers={"Accept-Encoding": "gzip"}) as response:
        assert "Content-Encoding" not in response.headers


async def test_only_a_file_whose_name_has_its_version_is_kept_unasked(browser: Client) -> None:
    async with browser.get("/assets/vendor/thing-1.2.3.js") as response:
        assert response.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    async with browser.get("/assets/style.css") as response:
        assert response.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize(
    "name",
    [
        "../secret.js",
        "..%2fsecret.js",
        "%2e%2e/secret.js",
        "%2e%2e%2fsecret.js",
        "vendor/../../secret.js",
        "vendor/..%2f..%2fsecret.js",
        "..%5csecret.js",
        "%252e%252e/secret.js",
        "/etc/hostname.txt",
        "%2fetc%2fhostname.txt",
        ".hidden.js",
        "link.js",
        "private.key",
        "vendor",
        "vendor/",
        "style.css%00.js",
        "style.css/x.js",
        "a" * 300 + ".js",
        "nothing.js",
    ],
)
async def test_nothing_but_the_pages_own_files_is_served(browser: Client, name: str) -> None:
    assert browser.server is not None
    # By hand: a client's library would tidy the path up.
    reader, writer = await asyncio.open_connection(browser.server.host, browser.server.port)
    writer.write(f"GET /assets/{name} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    reply = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert reply.split(b" ")[1] in (b"404", b"400")
    for secret in (b"\r\n\r\nsecret", b"\r\n\r\nhidden", b"\r\n\r\nprivate"):
        assert secret not in reply


async def test_the_page_needs_no_owner_and_forbids_what_it_does_not_need(client: Client) -> None:
    async with client.get("/") as response:
        assert response.status == 200
        assert "Set-Cookie" not in response.headers
        policy = dict(part.strip().split(" ", 1) for part in response.headers["Content-Security-Policy"].split(";"))
        assert policy == {
            "default-src": "'none'",
            "script-src": "'self'",
            "style-src": "'self'",
            "connect-src": "'self'",
            "img-src": "'self' data:",
            "base-uri": "'none'",
            "form-action": "'none'",
            "frame-ancestors": "'none'",
            "require-trusted-types-for": "'script'",
            "trusted-types": "dompurify",
        }
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "no-referrer"


async def test_every_file_of_the_page_is_served_with_its_kind(client: Client) -> None:
    kinds = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}
    files = [path for path in FOLDER.rglob("*") if path.suffix in kinds]
    assert len(files) >= 4
    for path in files:
        async with client.get(f"/assets/{path.relative_to(FOLDER)}") as response:
            assert (response.status, response.content_type) == (200, kinds[path.suffix]), path
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert await response.read() == path.read_bytes()


@pytest.mark.parametrize("folder", [VENDOR, ROOT / "tests" / "page" / "vendor"], ids=["app", "tests"])
def test_the_vendored_libraries_are_what_their_list_says(folder: Path) -> None:
    libraries = json.loads((folder / "vendor.json").read_text("utf-8"))
    for library in libraries:
        content = (folder / library["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == library["sha256"], library["name"]
        assert library["version"] in library["file"]
        assert library["version"].encode() in content
        assert library["licence"]
        assert (folder / library["licence_file"]).stat().st_size > 500
        assert b"sourceMappingURL" not in content
    listed = {name for library in libraries for name in (library["file"], library["licence_file"])}
    assert {path.name for path in folder.iterdir()} == listed | {"vendor.json"}
