"""Two tabs on one conversation: both show it, whoever asks."""

import pytest
from playwright.async_api import Route, expect

from tests.page.conftest import Open, answered, say
from tests.support.scripted_upstream import Gate, ScriptedUpstream

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_both_tabs_show_an_answer_while_it_is_written(
    open_page: Open, upstream: ScriptedUpstream, gate: Gate
) -> None:
    one = await open_page()
    await say(one, "First")
    await answered(one)
    two = await open_page("/" + await one.evaluate("location.hash"), beside=one)
    await answered(two)
    upstream.reply(["a", "b", "c"], gate=gate)
    await say(one, "Second")
    gate.release(2)
    for page in (one, two):
        await expect(page.locator(".bubble")).to_have_text(["First", "Second"])
        await expect(page.locator(".answer .markdown").last).to_have_text("ab")
    await two.click("#composer button[aria-label=Stop]")  # whoever sees it may stop it
    for page in (one, two):
        await answered(page, 2)
        await expect(page.locator(".about").last).to_have_text("Stopped. · model-a")
    await say(two, "Third")
    for page in (one, two):
        await answered(page, 3)
        await expect(page.locator(".answer .markdown").last).to_have_text("Echo: Third")
    assert len(upstream.requests) == 3


async def test_what_one_tab_does_to_the_list_shows_in_the_other(open_page: Open, upstream: ScriptedUpstream) -> None:
    one = await open_page()
    two = await open_page(beside=one)
    await say(one, "First")
    await expect(two.locator(".conversations a")).to_have_text("First")
    await two.hover(".conversations li")
    await two.click("[data-role=remove]")
    await two.click("#remove .danger")
    await expect(one.locator(".conversations a")).to_have_count(0)


async def test_the_slower_of_two_tabs_gets_its_text_back(
    open_page: Open, upstream: ScriptedUpstream, gate: Gate
) -> None:
    one = await open_page()
    await say(one, "First")
    await answered(one)
    two = await open_page("/" + await one.evaluate("location.hash"), beside=one)
    await answered(two)
    # The other tab has not heard of it yet.
    await two.evaluate("BroadcastChannel.prototype.dispatchEvent = () => {}")
    await two.evaluate(
        "window.addEventListener('focus', e => e.stopImmediatePropagation(), true);"
        "document.addEventListener('visibilitychange', e => e.stopImmediatePropagation(), true)"
    )
    upstream.reply(["a", "b"], gate=gate)
    held: list[Route] = []

    async def hold(route: Route) -> None:
        held.append(route)

    await two.route("**/conversations/*", hold)
    await say(one, "Second")
    gate.release()
    await expect(one.locator(".answer .markdown").last).to_have_text("a")
    await say(two, "Third")
    for route in held:
        await route.continue_()
    await two.unroute("**/conversations/*")
    await expect(two.locator("#box")).to_have_value("Third")
    await expect(two.locator(".bubble")).to_have_text(["First", "Second"])
    await expect(two.locator(".answer .markdown").last).to_have_text("a")
    gate.open()
    await answered(two, 2)


async def test_another_device_sees_what_is_new_when_it_is_looked_at(
    open_page: Open, upstream: ScriptedUpstream, gate: Gate
) -> None:
    one = await open_page()
    await say(one, "First")
    await answered(one)
    state = await one.context.storage_state()
    two = await open_page("/" + await one.evaluate("location.hash"), storage_state=state)
    await answered(two)
    upstream.reply(["a", "b"], gate=gate)
    await say(one, "Second")
    gate.release()
    await expect(one.locator(".answer .markdown").last).to_have_text("a")
    await expect(two.locator(".bubble")).to_have_text(["First"])
    await two.evaluate("dispatchEvent(new Event('focus'))")
    await expect(two.locator(".bubble")).to_have_text(["First", "Second"])
    await expect(two.locator(".answer .markdown").last).to_have_text("a")
    gate.open()
    for page in (one, two):
        await answered(page, 2)
        await expect(page.locator(".answer .markdown").last).to_have_text("ab")
