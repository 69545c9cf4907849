"""Messages that fail, and those that are sent before all is there: no text is lost, and the page goes on."""

import asyncio

import pytest
from playwright.async_api import Page, Route, expect

from tests.page.conftest import Open, answered, say
from tests.support.scripted_upstream import ScriptedUpstream

pytestmark = pytest.mark.asyncio(loop_scope="session")

TOO_LARGE = "x" * 300_000


async def _refuse(route: Route) -> None:
    await route.fulfill(
        status=422, content_type="application/problem+json", body='{"detail": "Not this one.", "code": "no"}'
    )


async def test_another_message_takes_the_place_of_one_that_failed(open_page: Open, upstream: ScriptedUpstream) -> None:
    page = await open_page()
    await say(page, "First")
    await answered(page)
    await say(page, TOO_LARGE)
    await expect(page.locator(".try-again")).to_be_visible()
    await say(page, "Second")
    await answered(page, 2)
    await expect(page.locator(".bubble")).to_have_text(["First", "Second"])
    assert [message["content"] for message in upstream.requests[-1]["messages"]] == ["First", "Echo: First", "Second"]


async def test_another_answer_takes_the_place_of_a_message_that_failed(
    open_page: Open, upstream: ScriptedUpstream
) -> None:
    page = await open_page()
    await say(page, "First")
    await answered(page)
    await say(page, TOO_LARGE)
    await expect(page.locator(".try-again")).to_be_visible()
    await page.click(".regenerate")
    await expect(page.locator(".answer .versions")).to_have_text("2/2")
    await answered(page)
    await expect(page.locator(".bubble")).to_have_text(["First"])


async def test_a_message_follows_what_was_there_before_another_answer_was_refused(
    open_page: Open, upstream: ScriptedUpstream
) -> None:
    page = await open_page()
    await say(page, "First")
    await answered(page)
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
    page = await open_page()
    await say(page, "First")
    await answered(page)
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
