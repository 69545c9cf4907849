"""One real Chromium and one service for all tests of the page; each test has a fresh browser profile and its own script.

All of it runs in one event loop, as the browser's connection belongs to the loop that made it.
"""

import re
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest_asyncio
from playwright.async_api import Browser, Page, Request, async_playwright, expect

from tests.support.needs import needs
from tests.support.scripted_upstream import Gate, ScriptedUpstream, echo
from tests.support.service import ServiceProcess
from tests.support.store import StoreProcess

OUTPUT = Path(__file__).parents[1] / "output" / "page"

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

#: A bound for what is waited for, on a busy machine too.
PATIENCE_MS = 20_000
expect.set_options(timeout=PATIENCE_MS)

Open = Callable[..., Awaitable[Page]]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Chromium, for the whole run."""
    path = needs("chromium", "open the page in")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def model() -> AsyncIterator[ScriptedUpstream]:
    """The model server of the one service."""
    async with ScriptedUpstream() as scripted:
        yield scripted


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def service(store_process: StoreProcess, model: ScriptedUpstream) -> AsyncIterator[ServiceProcess]:
    """The service as an operator runs it; several tests share it, as each of their browsers is an owner of its own."""
    with tempfile.TemporaryDirectory(prefix="parley-page-") as folder:
        process = ServiceProcess(
            Path(folder),
            redis_url=store_process.url,
            openai_base_url=model.base_url,
            openai_api_key="sk-test-0123456789",
            openai_model="model-a,model-b",
            upstream_retry_seconds=1,
            limit_address_messages_per_minute=0,
            shutdown_grace_seconds=0,
        )
        await process.start()
        yield process
        process.close()


@pytest_asyncio.fixture(loop_scope="session")
async def upstream(model: ScriptedUpstream) -> AsyncIterator[ScriptedUpstream]:
    """The model server without what the last test told it."""
    model._scripts.clear()
    model.requests.clear()
    model.default = echo
    yield model


@pytest_asyncio.fixture(loop_scope="session")
async def gate(upstream: ScriptedUpstream) -> AsyncIterator[Gate]:
    """A gate for an answer's script; it is open when the test is over, so that nothing stays behind."""
    gate = upstream.gate()
    yield gate
    gate.open()


@pytest_asyncio.fixture(loop_scope="session")
async def open_page(browser: Browser, service: ServiceProcess, upstream: ScriptedUpstream) -> AsyncIterator[Open]:
    """Open the page in a new browser profile, or in that of `beside`; fails the test on whatever should never happen.

    That is: an error in the page, a breach of its policy, a dialog, or a request to another host.
    """
    wrong: list[str] = []
    async with AsyncExitStack() as stack:

        async def opener(
            path: str = "/", *, url: str = "", beside: Page | None = None, expected: str = r"$^", **options: Any
        ) -> Page:
            origin = url or service.url
            if beside is None:
                context = await browser.new_context(**{"viewport": {"width": 1100, "height": 760}} | options)
                stack.push_async_callback(context.close)
                await context.grant_permissions(["clipboard-read", "clipboard-write"], origin=origin)

                # Looked at, not intercepted: an intercepted preload can hang.
                def sent(request: Request) -> None:
                    if not request.url.startswith((origin, "data:")) and request.failure != "csp":
                        wrong.append(f"request to {request.url}")

                context.on("requestfinished", sent)
                context.on("requestfailed", sent)
            else:
                context = beside.context
            page = await context.new_page()
            page.set_default_timeout(PATIENCE_MS)
            page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
            page.on("dialog", lambda dialog: wrong.append(f"dialog: {dialog.message}"))
            page.on(
                "console",
                lambda message: (
                    wrong.append(f"console: {message.text}")
                    if message.type in ("error", "warning")
                    and not message.text.startswith("Failed to load resource")
                    and not re.search(expected, message.text)
                    else None
                ),
            )
            await page.goto(origin + path)
            await page.wait_for_selector("html[data-ready]")
            return page

        yield opener
        assert wrong == []


async def say(page: Page, text: str) -> None:
    """Write a message and send it."""
    await page.fill("#box", text)
    await page.press("#box", "Enter")


async def answered(page: Page, count: int = 1) -> None:
    """Wait until so many answers are shown and nothing is being written."""
    await page.wait_for_function(
        "count => document.querySelectorAll('.answer').length === count"
        " && document.querySelectorAll('.answer .regenerate:not(:disabled)').length === count",
        arg=count,
    )


async def shoot(page: Page, name: str) -> Path:
    """Keep a picture of the page under `tests/output`."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    path = OUTPUT / f"{name}.png"
    await page.screenshot(path=path)
    return path
