"""What a person sees of an answer: it grows, survives a reload and a cut, stops, and says what went wrong."""

import asyncio
import re
from pathlib import Path

import pytest
from playwright.async_api import Route, expect

from tests.page.conftest import Open, answered, say, shoot
from tests.support.proxy import Proxy
from tests.support.scripted_upstream import Gate, Script, ScriptedUpstream, echo
from tests.support.service import ServiceProcess

pytestmark = pytest.mark.asyncio(loop_scope="session")

WORDS = [f"word{n} " for n in range(1, 21)]


async def test_the_first_message_is_answered_and_listed(open_page: Open, upstream: ScriptedUpstream) -> None:
    page = await open_page()
    await expect(page.locator(".welcome h2")).to_have_text("What is on your mind?")
    await expect(page.locator("#sidebar .nothing")).to_be_visible()
    await shoot(page, "empty")
    await page.click("text=Explain how a rainbow forms")
    await expect(page.locator("#box")).to_be_focused()
    await page.press("#box", "Enter")
    await answered(page)
    await expect(page.locator(".bubble")).to_have_text("Explain how a rainbow forms")
    await expect(page.locator(".answer .markdown")).to_have_text("Echo: Explain how a rainbow forms")
    await expect(page.locator(".about")).to_have_text("model-a · 11 tokens")
    await expect(page.locator(".conversations a")).to_have_text(["Explain how a rainbow forms"])
    assert re.fullmatch(r"#conv_[0-9a-f]{32}", await page.evaluate("location.hash"))
    assert await page.title() == "Explain how a rainbow forms · Parley"
    assert len(upstream.requests) == 1


async def test_an_answer_is_seen_to_grow_word_by_word(open_page: Open, upstream: ScriptedUpstream, gate: Gate) -> None:
    upstream.reply(WORDS, gate=gate)
    page = await open_page()
    await say(page, "Count")
    await expect(page.locator("#status")).to_have_text("Answering…")
    for count in (1, 2, 7, 20):
        gate.release(count - len((await page.locator(".answer .markdown").inner_text()).split()))
        await expect(page.locator(".answer .markdown")).to_have_text("".join(WORDS[:count]).strip())
        await expect(page.locator(".answer")).to_have_attribute("aria-busy", "true")
    gate.open()
    await answered(page)
    await expect(page.locator(".answer")).to_have_attribute("aria-busy", "false")
    await expect(page.locator("#status")).to_have_text("The answer is complete.")


async def test_a_reload_in_the_middle_shows_what_was_there_and_what_comes(
    open_page: Open, upstream: ScriptedUpstream, gate: Gate
) -> None:
    upstream.reply(WORDS, gate=gate)
    page = await open_page()
    await say(page, "Count")
    gate.release(5)
    await expect(page.locator(".answer .markdown")).to_have_text("".join(WORDS[:5]).strip())
    await page.reload()
    await expect(page.locator(".answer .markdown")).to_have_text("".join(WORDS[:5]).strip())
    await expect(page.locator(".bubble")).to_have_text("Count")
    gate.release(5)
    await expect(page.locator(".answer .markdown")).to_have_text("".join(WORDS[:10]).strip())
    gate.open()
    await answered(page)
    await expect(page.locator(".answer .markdown")).to_have_text("".join(WORDS).strip())
    assert len(upstream.requests) == 1


async def test_a_network_that_is_cut_in_the_middle_costs_no_word(
    open_page: Open, upstream: ScriptedUpstream, gate: Gate, service: ServiceProcess
) -> None:
    upstream.reply(WORDS, gate=gate)
    async with Proxy(service.url.removeprefix("http://")) as proxy:
        page = await open_page(url=f"http://{proxy.address}")
        await say(page, "Count")
        gate.release(5)
        await expect(page.locator(".answer .markdown")).to_have_text("".join(WORDS[:5]).strip())
        proxy.accepting = False
        proxy.cut()
        gate.release(5)
        await asyncio.sleep(0)
        proxy.accepting = True
        await expect(page.locator(".answer .markdown")).to_have_text("".join(WORDS[:10]).strip())
        proxy.cut()
        gate.open()
        await answered(page)
        await expect(page.locator(".answer .markdown")).to_have_text("".join(WORDS).strip())
        assert len(upstream.requests) == 1
        await page.context.close()


async def test_stop_keeps_what_was_written(open_page: Open, upstream: ScriptedUpstream, gate: Gate) -> None:
    upstream.reply(WORDS, gate=gate)
    page = await open_page()
    await say(page, "Count")
    gate.release(3)
    await expect(page.locator(".answer .markdown")).to_have_text("word1 word2 word3")
    await page.click("#composer button[aria-label=Stop]")
    await answered(page)
    await expect(page.locator(".answer .markdown")).to_have_text("word1 word2 word3")
    await expect(page.locator(".about")).to_have_text("Stopped. · model-a")
    await upstream.wait_for_open_streams(0)
    await page.reload()
    await expect(page.locator(".answer .markdown")).to_have_text("word1 word2 word3")


async def test_reasoning_is_folded_away_and_notices_are_discreet(
    open_page: Open, upstream: ScriptedUpstream, gate: Gate
) -> None:
    upstream.error(503)
    upstream.reply(["Yes."], reasoning=["Let me ", "think."], gate=gate)
    page = await open_page()
    await say(page, "Is it so?")
    await expect(page.locator(".notices p")).to_contain_text("The model server does not answer. Try 2 comes in")
    gate.release(2)
    await expect(page.locator(".reasoning summary")).to_have_text("Thinking…")
    gate.open()
    await answered(page)
    await expect(page.locator(".reasoning summary")).to_have_text("Reasoning")
    await expect(page.locator(".thought")).to_be_hidden()
    await page.click(".reasoning summary")
    await expect(page.locator(".thought")).to_have_text("Let me think.")
    await expect(page.locator(".answer .markdown")).to_have_text("Yes.")
    await page.reload()
    await answered(page)
    await expect(page.locator(".thought")).to_have_text("Let me think.")


async def test_another_model_and_what_was_left_out_are_named(open_page: Open, upstream: ScriptedUpstream) -> None:
    page = await open_page()
    await say(page, "First")
    await answered(page)
    upstream.error(400, {"error": {"message": "too long", "code": "context_length_exceeded"}})
    await say(page, "Second")
    await answered(page, 2)
    await expect(page.locator(".notices p")).to_have_text("2 older messages did not fit and were left out.")
    upstream.default = lambda body: Script([], status=503) if body["model"] == "model-a" else echo(body)
    await say(page, "Third")
    await expect(page.locator(".answer").last.locator("[data-code=model_changed]")).to_have_text(
        "model-b answers instead."
    )
    await answered(page, 3)
    await expect(page.locator(".about").last).to_contain_text("model-b ·")
    await page.reload()
    await expect(page.locator(".notices p")).to_have_text("2 older messages did not fit and were left out.")


async def test_the_demo_is_named_as_one(open_page: Open, tmp_path: Path) -> None:
    demo = ServiceProcess(tmp_path)
    await demo.start()
    try:
        page = await open_page(url=demo.url)
        await expect(page.locator("#demo")).to_have_text(
            "Demo: no AI answers here, only a small program. Set OPENAI_API_KEY or OPENAI_BASE_URL for a real model."
        )
        await say(page, "Hi")
        await expect(page.locator(".answer .markdown")).to_contain_text("I am Parley's built-in demo model")
        await page.context.close()
    finally:
        demo.close()


async def test_a_failed_answer_says_so_in_words_and_can_be_tried_again(
    open_page: Open, upstream: ScriptedUpstream
) -> None:
    upstream.raw([b'data: {"choices":[{"delta":{"content":"Half an"}}]}\n\n'])
    page = await open_page()
    await say(page, "Hello")
    await expect(page.locator(".problem p")).to_contain_text("The answer failed. The model server")
    await expect(page.locator(".answer .markdown")).to_have_text("Half an")
    await shoot(page, "failed")
    await page.click(".try-again")
    await answered(page)
    await expect(page.locator(".answer .markdown")).to_have_text("Echo: Hello")
    await expect(page.locator(".problem")).to_be_hidden()
    await expect(page.locator(".answer .versions")).to_contain_text("2/2")


async def test_a_message_that_could_not_be_sent_is_kept_and_can_be_tried_again(
    open_page: Open, upstream: ScriptedUpstream
) -> None:
    page = await open_page()
    await page.clock.install()  # it goes on as any clock, but for the page's patience, which is ten seconds long
    tries, again = 0, asyncio.Event()

    async def abort(route: Route) -> None:
        nonlocal tries
        tries += 1
        await route.abort()
        if tries == 2:
            again.set()

    await page.route("**/messages", abort)
    await say(page, "Hello")
    await asyncio.wait_for(again.wait(), 20)
    await page.clock.fast_forward(10_000)
    await expect(page.locator(".problem p")).to_have_text("The service can’t be reached.")
    await expect(page.locator(".bubble")).to_have_text("Hello")
    await page.unroute("**/messages")
    await page.click(".try-again")
    await answered(page)
    await expect(page.locator(".bubble")).to_have_text(["Hello"])
    await expect(page.locator(".answer .markdown")).to_have_text("Echo: Hello")
    assert len(upstream.requests) == 1


async def test_what_the_service_refuses_is_said_in_its_words(open_page: Open, service: ServiceProcess) -> None:
    page = await open_page()
    await say(page, "x" * 300_000)
    await expect(page.locator(".problem p")).to_contain_text("The service said no: The body is larger")
    page = await open_page("/#conv_" + "0" * 32)
    await expect(page.locator("#thread .nothing")).to_have_text("This conversation does not exist, or is not yours.")
