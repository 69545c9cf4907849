"""Versions of a message: another answer, an edited question, arrows between them; and what can be copied."""

import pytest
from playwright.async_api import expect

from tests.page.conftest import Open, answered, say
from tests.support.scripted_upstream import Gate, ScriptedUpstream

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_another_answer_stands_beside_the_first_and_arrows_lead_between_them(
    open_page: Open, upstream: ScriptedUpstream
) -> None:
    for text in ("One.", "Two.", "Three."):
        upstream.reply([text])
    page = await open_page()
    await say(page, "Say a number")
    await answered(page)
    for count in (2, 3):
        await page.click(".regenerate")
        await expect(page.locator(".answer .versions")).to_have_text(f"{count}/{count}")
        await answered(page)
    answer = page.locator(".answer .markdown")
    await expect(answer).to_have_text("Three.")
    assert [len(request["messages"]) for request in upstream.requests] == [1, 1, 1]
    await page.click("[aria-label='Previous version']")
    await expect(answer).to_have_text("Two.")
    await expect(page.locator(".answer .versions")).to_have_attribute("aria-label", "2 of 3")
    await page.keyboard.press("Enter")  # the focus has stayed at the arrow
    await expect(answer).to_have_text("One.")
    await expect(page.locator("[aria-label='Previous version']")).to_be_disabled()
    # What is said now follows what is shown, not what came last.
    await say(page, "And then?")
    await answered(page, 2)
    assert [message["content"] for message in upstream.requests[-1]["messages"]] == [
        "Say a number",
        "One.",
        "And then?",
    ]
    await page.locator("[aria-label='Next version']").first.click()
    await expect(page.locator(".answer")).to_have_count(1)
    await expect(answer).to_have_text("Two.")
    await page.locator("[aria-label='Previous version']").first.click()
    await expect(page.locator(".answer .markdown").last).to_have_text("Echo: And then?")


async def test_an_edited_question_is_asked_anew_and_the_old_one_kept(
    open_page: Open, upstream: ScriptedUpstream
) -> None:
    page = await open_page()
    await say(page, "First")
    await answered(page)
    await say(page, "Second")
    await answered(page, 2)
    await page.locator(".question").last.hover()
    await page.locator(".question .edit").last.click()
    box = page.locator(".edit-area")
    await expect(box).to_be_focused()
    await expect(box).to_have_value("Second")
    await box.fill("Other")
    await page.click(".edit-form .primary")
    await answered(page, 2)
    await expect(page.locator(".bubble")).to_have_text(["First", "Other"])
    assert [message["content"] for message in upstream.requests[-1]["messages"]] == ["First", "Echo: First", "Other"]
    await page.locator(".question .versions [aria-label='Previous version']").click()
    await expect(page.locator(".bubble")).to_have_text(["First", "Second"])
    await expect(page.locator(".answer .markdown").last).to_have_text("Echo: Second")
    # The very first can be edited too: it follows nothing.
    await page.locator(".question").first.hover()
    await page.locator(".question .edit").first.click()
    await page.locator(".edit-area").fill("Begin anew")
    await page.locator(".edit-area").press("Enter")
    await answered(page, 1)
    await expect(page.locator(".bubble")).to_have_text(["Begin anew"])
    assert [message["content"] for message in upstream.requests[-1]["messages"]] == ["Begin anew"]
    await expect(page.locator(".conversations li")).to_have_count(1)
    await page.reload()
    await answered(page, 1)
    await expect(page.locator(".question .versions")).to_have_text("2/2")


async def test_an_edit_can_be_given_up(open_page: Open, upstream: ScriptedUpstream) -> None:
    page = await open_page()
    await say(page, "First")
    await answered(page)
    await page.locator(".question").hover()
    await page.click(".question .edit")
    await page.locator(".edit-area").fill("Other")
    await page.keyboard.press("Escape")
    await expect(page.locator(".bubble")).to_have_text("First")
    await expect(page.locator(".question .edit")).to_be_focused()
    assert len(upstream.requests) == 1


async def test_a_message_and_a_block_of_code_can_be_copied(open_page: Open, upstream: ScriptedUpstream) -> None:
    text = "Look:\n\n```python\ndef f(x):\n    return x < 1\n```\n\nThat was it."
    upstream.reply([text[at : at + 5] for at in range(0, len(text), 5)])
    page = await open_page()
    await say(page, "Show me")
    await answered(page)
    clipboard = "navigator.clipboard.readText()"
    await page.click(".copy-code")
    await expect(page.locator(".copy-code")).to_have_text("Copied")
    assert await page.evaluate(clipboard) == "def f(x):\n    return x < 1"
    await page.click(".answer .tools [aria-label=Copy]")
    await expect(page.locator(".answer .tools [aria-label=Copied]")).to_be_visible()
    assert await page.evaluate(clipboard) == text
    await expect(page.locator(".code-language")).to_have_text("python")
    await expect(page.locator(".code .hljs-keyword").first).to_have_text("def")


async def test_nothing_can_be_asked_twice_while_an_answer_is_written(
    open_page: Open, upstream: ScriptedUpstream, gate: Gate
) -> None:
    page = await open_page()
    await say(page, "First")
    await answered(page)
    upstream.reply(["a", "b"], gate=gate)
    await say(page, "Second")
    gate.release()
    await expect(page.locator(".answer .markdown").last).to_have_text("a")
    await say(page, "Third")  # stays in the box
    await expect(page.locator("#box")).to_have_value("Third")
    await expect(page.locator(".regenerate")).to_be_disabled()
    gate.open()
    await answered(page, 2)
    await expect(page.locator("#box")).to_have_value("Third")
    assert len(upstream.requests) == 2


async def test_a_click_that_brings_the_window_back_is_not_lost(open_page: Open, upstream: ScriptedUpstream) -> None:
    page = await open_page()
    await say(page, "First")
    await answered(page)
    upstream.raw([b'data: {"choices":[{"delta":{"content":"Half an"}}]}\n\n'])
    for button in (".regenerate", ".try-again"):
        await page.hover(button)
        await page.mouse.down()
        async with page.expect_event("requestfinished", lambda request: "/conversations/conv_" in request.url):
            await page.evaluate("dispatchEvent(new Event('focus'))")
        await page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        await page.mouse.up()
        await answered(page)
    await expect(page.locator(".answer .versions")).to_have_text("3/3")
