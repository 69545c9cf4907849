"""What stands between the page and the service: a proxy that holds answers back; and the way without a client."""

import re

import pytest
from playwright.async_api import expect

from tests.page.conftest import Open, answered, say
from tests.support.proxy import Proxy
from tests.support.scripted_upstream import Gate, ScriptedUpstream
from tests.support.service import ROOT, ServiceProcess

pytestmark = pytest.mark.asyncio(loop_scope="session")

README = (ROOT / "README.md").read_text("utf-8")


async def test_three_lines_of_event_source_read_an_answer_through_a_cut(
    open_page: Open, upstream: ScriptedUpstream, gate: Gate, service: ServiceProcess
) -> None:
    lines = re.findall(r"```js\n(const source = new EventSource.*?)```", README, re.DOTALL)[0]
    assert lines.count("\n") == 3
    upstream.reply([f"word{n} " for n in range(20)], gate=gate)
    async with Proxy(service.url.removeprefix("http://")) as proxy:
        page = await open_page(url=f"http://{proxy.address}")
        await say(page, "Count")
        gate.release(5)
        await expect(page.locator(".answer .markdown")).to_have_text("word0 word1 word2 word3 word4")
        await page.evaluate(
            f"""id => {{
              let answer = ''
              {lines}
              Object.assign(window, {{source, read: () => answer}})
            }}""",
            await page.locator(".answer").get_attribute("data-id"),
        )
        await page.wait_for_function("() => read() === 'word0 word1 word2 word3 word4 '")
        proxy.cut()
        gate.open()
        await answered(page)
        await page.wait_for_function("() => source.readyState === EventSource.CLOSED")
        assert await page.evaluate("read()") == "".join(f"word{n} " for n in range(20))
        await page.context.close()


async def test_a_proxy_that_holds_an_answer_back_is_named(
    open_page: Open, upstream: ScriptedUpstream, service: ServiceProcess
) -> None:
    async with Proxy(service.url.removeprefix("http://")) as proxy:
        page = await open_page(url=f"http://{proxy.address}")
        script = upstream.reply([f"word{n} " for n in range(20)], delay=0.1)
        await expect(page.locator("#hint")).to_be_hidden()
        proxy.buffering = True
        await say(page, "Count")
        await upstream.wait_for_sent(script, 20)
        await answered(page)
        await expect(page.locator("#hint p")).to_contain_text("holds answers back")
        await page.click("#hint button")
        await expect(page.locator("#hint")).to_be_hidden()
        await page.context.close()


async def test_a_service_that_only_thinks_long_is_not_taken_for_one_behind_a_proxy(
    open_page: Open, upstream: ScriptedUpstream
) -> None:
    upstream.reply(["All ", "at ", "once."], delay=0.5)
    page = await open_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await say(page, "Slowly")
    await answered(page)
    await expect(page.locator("#hint")).to_be_hidden()
    assert [url for url in asked if "/health/" in url] == []
