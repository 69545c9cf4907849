"""The list of conversations: newest first, in pages; rename, delete after a question, begin a new one."""

import asyncio

import pytest
from playwright.async_api import Route, expect

from tests.page.conftest import Open, answered, say
from tests.support.scripted_upstream import Gate, ScriptedUpstream

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_the_newest_activity_stands_first_and_each_conversation_opens(
    open_page: Open, upstream: ScriptedUpstream
) -> None:
    page = await open_page()
    links = page.locator(".conversations a")
    for text in ("One", "Two", "Three"):
        await page.click("#sidebar .new-chat")
        await expect(page.locator(".welcome")).to_be_visible()
        await say(page, text)
        await answered(page)
    await expect(links).to_have_text(["Three", "Two", "One"])
    await page.click("text=One")
    await expect(page.locator(".bubble")).to_have_text("One")
    await expect(page.locator("[aria-current=page]")).to_have_text("One")
    await say(page, "More")
    await answered(page, 2)
    await expect(links).to_have_text(["One", "Three", "Two"])
    await page.go_back()
    await expect(page.locator(".bubble")).to_have_text("Three")


async def test_a_conversation_is_renamed(open_page: Open, upstream: ScriptedUpstream) -> None:
    page = await open_page()
    await say(page, "One")
    await answered(page)
    await page.hover(".conversations li")
    await page.click("[data-role=rename]")
    field = page.locator(".conversations input")
    await expect(field).to_be_focused()
    await field.fill("Lighthouses")
    await field.press("Enter")
    await expect(page.locator(".conversations a")).to_have_text("Lighthouses")
    await expect(page.locator("[data-role=rename]")).to_be_focused()
    await expect(page).to_have_title("Lighthouses · Parley")
    await page.click("[data-role=rename]")
    await field.fill("No")
    await field.press("Escape")
    await page.reload()
    await expect(page.locator(".conversations a")).to_have_text("Lighthouses")


async def test_who_goes_on_writing_after_a_rename_is_not_taken_away_from_it(
    open_page: Open, upstream: ScriptedUpstream
) -> None:
    page = await open_page()
    await say(page, "One")
    await answered(page)
    go = asyncio.Event()

    async def slow(route: Route) -> None:
        if route.request.method == "PATCH":
            await go.wait()
        await route.continue_()

    await page.route("**/conversations/conv_*", slow)
    for title, words in (("Lighthouses", "first "), ("Lighthouses", "second")):  # a new title, and the same one
        await page.hover(".conversations li")
        await page.click("[data-role=rename]")
        await page.keyboard.type(title)
        await page.click("#box")
        await expect(page.locator(".conversations a")).to_have_text(title)
        await page.keyboard.type(words[:3])
        go.set()
        await expect(page).to_have_title(f"{title} · Parley")
        await page.keyboard.type(words[3:])
    await expect(page.locator("#box")).to_have_value("first second")


async def test_a_conversation_is_deleted_after_a_question(
    open_page: Open, upstream: ScriptedUpstream, gate: Gate
) -> None:
    page = await open_page()
    await say(page, "Keep me")
    await answered(page)
    await page.click("#sidebar .new-chat")
    upstream.reply(["a", "b"], gate=gate)
    await say(page, "Drop me")
    gate.release()
    await expect(page.locator(".answer .markdown")).to_have_text("a")
    # What comes to stand under a mouse that does not move is not hovered over: the list has to be there first.
    await expect(page.locator(".conversations a")).to_have_text(["Drop me", "Keep me"])
    await page.locator(".conversations li").first.hover()
    await page.locator("[data-role=remove]").first.click()
    await expect(page.locator("#remove p")).to_have_text("“Drop me” and all its messages will be gone for good.")
    await page.click("#remove .button:not(.danger)")
    await expect(page.locator(".conversations a")).to_have_text(["Drop me", "Keep me"])
    await page.locator(".conversations li").first.hover()
    await page.locator("[data-role=remove]").first.click()
    await page.click("#remove .danger")
    await expect(page.locator(".conversations a")).to_have_text(["Keep me"])
    await expect(page.locator(".welcome")).to_be_visible()
    await upstream.wait_for_open_streams(0)  # the answer that was being written has been stopped
    await page.reload()
    await expect(page.locator(".conversations a")).to_have_text(["Keep me"])


async def test_older_conversations_come_on_demand(open_page: Open, upstream: ScriptedUpstream) -> None:
    page = await open_page()
    await page.evaluate(
        """async () => {
          for (let n = 1; n <= 53; n++)
            await fetch('/conversations', {method: 'POST', headers: {'Content-Type': 'application/json'},
              body: JSON.stringify({title: `Number ${n}`})})
        }"""
    )
    await page.reload()
    links = page.locator(".conversations a")
    await expect(links).to_have_count(50)
    await expect(links.first).to_have_text("Number 53")
    await page.route("**/conversations/before/*", lambda route: route.abort())
    await page.click(".more")
    await expect(page.locator("#hint p")).to_have_text("The service can’t be reached.")
    await page.unroute("**/conversations/before/*")
    await page.click(".more")
    await expect(links).to_have_count(53)
    await expect(links.nth(50)).to_be_focused()
    await expect(links.last).to_have_text("Number 1")
    await expect(page.locator(".more")).to_be_hidden()
    await say(page, "Newer still")
    await answered(page)
    await expect(links).to_have_count(54)  # what was opened stays open
    await expect(links.first).to_have_text("Newer still")
