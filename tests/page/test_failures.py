"""What fails, and what is sent before all is there: it is said, no text is lost, and the page goes on."""

import asyncio
from pathlib import Path

import pytest
from playwright.async_api import Page, Route, expect

from tests.page.conftest import Open, answered, say
from tests.support.scripted_upstream import Gate, ScriptedUpstream
from tests.support.service import ServiceProcess

pytestmark = pytest.mark.asyncio(loop_scope="session")

TOO_LARGE = "x" * 300_000


async def _after_one(open_page: Open) -> Page:
    """Return a page on which one message has been answered."""
    page = await open_page()
    await say(page, "First")
    await answered(page)
    return page


async def _refuse(route: Route) -> None:
    await route.fulfill(
        status=422, content_type="application/problem+json", body='{"detail": "Not this one.", "code": "no"}'
    )


async def test_another_message_takes_the_place_of_one_that_failed(open_page: Open, upstream: ScriptedUpstream) -> None:
    page = await _after_one(open_page)
    await say(page, TOO_LARGE)
    await expect(page.locator(".try-again")).to_be_visible()
    await say(page, "Second")
    await answered(page, 2)
    await expect(page.locator(".bubble")).to_have_text(["First", "Second"])
    assert [message["content"] for message in upstream.requests[-1]["messages"]] == ["First", "Echo: First", "Second"]


async def test_another_answer_takes_the_place_of_a_message_that_failed(
    open_page: Open, upstream: ScriptedUpstream
) -> None:
    page = await _after_one(open_page)
    await say(page, TOO_LARGE)
    await expect(page.locator(".try-again")).to_be_visible()
    await page.click(".regenerate")
    await expect(page.locator(".answer .versions")).to_have_text("2/2")
    await answered(page)
    await expect(page.locator(".bubble")).to_have_text(["First"])


async def test_a_message_follows_what_was_there_before_another_answer_was_refused(
    open_page: Open, upstream: ScriptedUpstream
) -> None:
    page = await _after_one(open_page)
    await page.route("**/regenerate", _refuse)
    await page.click(".regenerate")
    await expect(page.locator(".problem p")).to_have_text("The service said no: Not this one.")
    await say(page, "Second")
    await answered(page, 2)
    await expect(page.locator(".bubble")).to_have_text(["First", "Second"])
    await expect(page.locator(".answer .markdown").first).to_have_text("Echo: First")


async def test_an_edit_that_failed_leaves_the_versions_that_there_are(
    open_page: Open, upstream: ScriptedUpstream
) -> None:
    page = await _after_one(open_page)
    await page.route("**/messages", _refuse)
    await page.hover(".question")
    await page.click(".question .edit")
    await page.fill(".edit-area", "Other")
    await page.press(".edit-area", "Enter")
    await expect(page.locator(".try-again")).to_be_visible()
    await page.unroute("**/messages")
    # What is shown is what the next message follows.
    await page.click("[aria-label='Previous version']")
    await say(page, "Second")
    await answered(page, 2)
    await expect(page.locator(".bubble")).to_have_text(["First", "Second"])
    await expect(page.locator(".versions")).to_have_count(0)


async def _late(page: Page) -> asyncio.Event:
    """Hold the page's next reading of a conversation back until the event is set. What it brings is older then."""
    go = asyncio.Event()
    held = False

    async def hold(route: Route) -> None:
        nonlocal held
        first, held = not held, True
        response = await route.fetch()
        if first:
            await go.wait()
        await route.fulfill(response=response)

    await page.route("**/conversations/conv_*", hold)
    return go


async def test_a_message_that_is_sent_before_the_page_has_begun_waits_in_its_box(
    open_page: Open, upstream: ScriptedUpstream
) -> None:
    page = await open_page()
    await page.context.clear_cookies()  # somebody new: the first answer of the service makes the owner
    go = asyncio.Event()

    async def hold(route: Route) -> None:
        await go.wait()
        await route.continue_()

    await page.route("**/conversations", hold)
    await page.reload()
    await say(page, "Hello")
    await expect(page.locator("#box")).to_have_value("Hello")
    assert upstream.requests == []
    go.set()
    await answered(page)
    await expect(page.locator(".bubble")).to_have_text(["Hello"])
    await page.unroute("**/conversations")
    await page.reload()  # it is the owner's who comes again
    await answered(page)
    await expect(page.locator(".bubble")).to_have_text(["Hello"])


async def test_a_message_that_is_sent_before_its_conversation_is_shown_follows_what_is_there(
    open_page: Open, upstream: ScriptedUpstream
) -> None:
    page = await open_page()
    await say(page, "My name is Ada")
    await answered(page)
    page = await open_page(beside=page)
    go = await _late(page)
    await page.click(".conversations a")
    await expect(page.locator(".welcome")).to_have_count(0)
    await say(page, "What is my name?")
    await expect(page.locator(".bubble")).to_have_text(["My name is Ada", "What is my name?"])
    await answered(page, 2)
    assert [message["content"] for message in upstream.requests[-1]["messages"]] == [
        "My name is Ada",
        "Echo: My name is Ada",
        "What is my name?",
    ]
    async with page.expect_event("requestfinished", lambda request: "/conversations/conv_" in request.url):
        go.set()
    await expect(page.locator(".bubble")).to_have_text(["My name is Ada", "What is my name?"])
    await expect(page.locator(".versions")).to_have_count(0)


async def test_a_message_that_is_sent_where_its_conversation_could_not_be_read_follows_what_is_there(
    open_page: Open, upstream: ScriptedUpstream
) -> None:
    page = await open_page()
    await say(page, "My name is Ada")
    await answered(page)
    page = await open_page(beside=page)
    await page.route("**/conversations/conv_*", _refuse)
    await page.click(".conversations a")
    await expect(page.locator("#thread")).to_have_text("The service said no: Not this one.")
    await page.route("**/messages", _refuse)
    await say(page, "What is my name?")
    await expect(page.locator(".try-again")).to_be_visible()
    await page.unroute("**/conversations/conv_*")
    await page.unroute("**/messages")
    await page.evaluate("dispatchEvent(new Event('focus'))")
    await expect(page.locator(".bubble")).to_have_text(["My name is Ada", "What is my name?"])
    await page.click(".try-again")
    await answered(page, 2)
    await expect(page.locator(".bubble")).to_have_text(["My name is Ada", "What is my name?"])
    assert len(upstream.requests[-1]["messages"]) == 3


async def test_what_was_read_before_a_message_was_sent_does_not_take_it_away(
    open_page: Open, upstream: ScriptedUpstream
) -> None:
    page = await _after_one(open_page)
    go = await _late(page)
    async with page.expect_request("**/conversations/conv_*"):
        await page.evaluate("dispatchEvent(new Event('focus'))")
    await say(page, "Second")
    await answered(page, 2)
    async with page.expect_event("requestfinished", lambda request: "/conversations/conv_" in request.url):
        go.set()
    await say(page, "Third")
    await answered(page, 3)
    await expect(page.locator(".bubble")).to_have_text(["First", "Second", "Third"])
    assert len(upstream.requests[-1]["messages"]) == 5


async def test_a_message_that_was_left_before_it_failed_waits_where_it_was_written(
    open_page: Open, upstream: ScriptedUpstream
) -> None:
    page = await open_page()
    for text in ("One", "Two"):
        await page.click("#sidebar .new-chat")
        await say(page, text)
        await answered(page)
    go = asyncio.Event()

    async def refuse_late(route: Route) -> None:
        await go.wait()
        await _refuse(route)

    await page.route("**/messages", refuse_late)
    async with page.expect_request("**/messages"):
        await say(page, "Written with care")
    await page.click(".conversations a:text('One')")
    await expect(page.locator(".bubble")).to_have_text(["One"])
    await page.fill("#box", "Something else")
    go.set()
    await expect(page.locator("#hint p")).to_contain_text("A message that you had left could not be sent.")
    await expect(page.locator("#box")).to_have_value("Something else")
    await page.fill("#box", "")
    await page.click(".conversations a:text('Two')")
    await expect(page.locator("#box")).to_have_value("Written with care")
    await page.unroute("**/messages")
    await page.press("#box", "Enter")
    await answered(page, 2)
    await expect(page.locator(".bubble")).to_have_text(["Two", "Written with care"])


async def test_a_stop_that_fails_says_so(open_page: Open, upstream: ScriptedUpstream, gate: Gate) -> None:
    upstream.reply(["a", "b"], gate=gate)
    page = await open_page()
    await say(page, "Count")
    gate.release()
    await expect(page.locator(".answer .markdown")).to_have_text("a")
    await page.route("**/stop", _refuse)
    await page.click("#composer button")
    await expect(page.locator("#hint p")).to_have_text("The service said no: Not this one.")


async def test_a_connection_that_is_lost_says_so_until_it_is_back(
    open_page: Open, upstream: ScriptedUpstream, gate: Gate
) -> None:
    upstream.reply(["a", "b"], gate=gate)
    page = await open_page()
    await say(page, "Count")
    gate.release()
    await expect(page.locator(".answer .markdown")).to_have_text("a")
    await expect(page.locator("#away")).to_be_hidden()
    await page.context.set_offline(True)
    await expect(page.locator("#away")).to_have_text("Connection lost. It goes on as soon as the network is back.")
    await page.context.set_offline(False)
    await expect(page.locator("#away")).to_be_hidden()
    # A service that is away while the network is there is seen with the next request.
    await page.route("**/conversations", lambda route: route.abort())
    await page.evaluate("dispatchEvent(new Event('focus'))")
    await expect(page.locator("#away")).to_be_visible()
    await page.unroute("**/conversations")
    await page.evaluate("dispatchEvent(new Event('focus'))")
    await expect(page.locator("#away")).to_be_hidden()
    gate.open()
    await answered(page)
    await expect(page.locator(".answer .markdown")).to_have_text("ab")


async def test_a_service_that_wants_tokens_says_whom_the_page_is_for(open_page: Open, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("")
    private = ServiceProcess(tmp_path, auth="token", tokens_file=tmp_path / "tokens")
    await private.start()
    try:
        page = await open_page(url=private.url)
        await expect(page.locator("#thread")).to_contain_text("This service wants a token from each program")
        await expect(page.locator("#box")).to_be_hidden()
        await expect(page.locator(".new-chat").first).to_be_hidden()
        await page.context.close()
    finally:
        private.close()
