"""The page for everybody: by keyboard alone, read aloud, on a phone, in the dark, without motion, in other scripts."""

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.page.conftest import Open, answered, say, shoot
from tests.page.test_rendering import SECTION
from tests.support.scripted_upstream import Gate, ScriptedUpstream

pytestmark = pytest.mark.asyncio(loop_scope="session")

AXE = (Path(__file__).parent / "vendor" / "axe-4.14.1.js").read_text("utf-8")


async def complaints(page: Page) -> list[Any]:
    """Return what axe-core finds wrong with what is shown now, its best practices included."""
    # Let what fades in be there, as a half transparent text has no contrast.
    await page.evaluate(
        "Promise.all(document.getAnimations().filter(a => a.effect.getTiming().iterations < 9).map(a => a.finished))"
    )
    await page.evaluate(AXE)
    found = await page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    assert found["passes"]
    return [
        (violation["id"], [(node["html"][:200], node["failureSummary"]) for node in violation["nodes"]])
        for violation in found["violations"]
    ]


@pytest.mark.parametrize(("scheme", "width"), [("light", 1100), ("dark", 360)])
async def test_axe_finds_nothing_wrong(
    open_page: Open, upstream: ScriptedUpstream, gate: Gate, scheme: str, width: int
) -> None:
    page = await open_page(viewport={"width": width, "height": 740}, color_scheme=scheme)
    assert await complaints(page) == []
    upstream.reply([SECTION], reasoning=["So it is."], usage=(1, 2, 3))
    await say(page, "Everything, please")
    await answered(page)
    await expect(page.locator(".hljs-keyword").first).to_be_visible()
    await page.click(".reasoning summary")
    await page.click(".regenerate")
    await answered(page)
    await page.locator(".answer [aria-label='Previous version']").click()
    await shoot(page, f"answer-{scheme}-{width}")
    assert await complaints(page) == []
    upstream.reply(["a", "b"], gate=gate)
    await say(page, "More")
    gate.release()
    await expect(page.locator(".answer.writing .markdown")).to_have_text("a")
    assert await complaints(page) == []
    gate.open()
    await answered(page, 2)
    await page.locator(".question").first.hover()
    await page.locator(".question .edit").first.click()
    assert await complaints(page) == []
    await page.keyboard.press("Escape")
    if width < 760:
        await page.click("#menu")
    await page.hover(".conversations li")
    assert await complaints(page) == []
    await page.click("[data-role=remove]")
    await expect(page.locator("#remove")).to_be_visible()
    assert await complaints(page) == []
    await page.click("#remove .button:not(.danger)")


async def test_all_that_a_mouse_does_the_keyboard_does(open_page: Open, upstream: ScriptedUpstream, gate: Gate) -> None:
    page = await open_page()
    press = page.keyboard.press
    await expect(page.locator("#box")).to_be_focused()
    await page.keyboard.type("First line")
    await press("Shift+Enter")
    await page.keyboard.type("second line")
    await press("Enter")
    await answered(page)
    await expect(page.locator(".bubble")).to_have_text("First line\nsecond line")

    async def reach(selector: str, key: str = "Shift+Tab") -> None:
        for _ in range(40):
            await press(key)
            if await page.evaluate("selector => document.activeElement.matches(selector)", selector):
                outline = "(() => { const s = getComputedStyle(document.activeElement); return s.outlineStyle })()"
                assert await page.evaluate(outline) != "none", f"the focus does not show at {selector}"
                return
        raise AssertionError(f"no way to {selector} with {key}")

    await reach(".regenerate")
    await press("Enter")
    await answered(page)
    await reach("[data-step='-1']")
    await press("Enter")
    await expect(page.locator(".answer .versions")).to_contain_text("1/2")
    await reach(".question .edit")
    await press("Enter")
    await page.keyboard.type(" and more")
    await press("Enter")
    await expect(page.locator(".bubble")).to_have_text("First line\nsecond line and more")
    await answered(page)
    await reach("[data-role=rename]")
    await press("Enter")
    await page.keyboard.type("By hand")
    await press("Enter")
    await expect(page.locator(".conversations a")).to_have_text("By hand")
    await expect(page.locator("[data-role=rename]")).to_be_focused()
    await reach("[data-role=remove]", "Tab")
    await press("Enter")
    await expect(page.locator("#remove")).to_be_visible()
    await press("Escape")
    await expect(page.locator("[data-role=remove]")).to_be_focused()
    await press("Enter")
    await press("Tab")
    await press("Enter")
    await expect(page.locator(".conversations a")).to_have_count(0)
    await expect(page.locator(".welcome")).to_be_visible()
    # The first stop of the page leads to the box; a second Tab reaches the button, which stops an answer.
    upstream.reply(["a", "b"], gate=gate)
    await page.focus("#box")
    await page.keyboard.type("Stop me")
    await press("Enter")
    gate.release()
    await expect(page.locator(".answer .markdown")).to_have_text("a")
    await press("Tab")
    await press("Enter")
    await expect(page.locator(".about")).to_have_text("Stopped. · model-a")
    await page.evaluate("document.activeElement.blur()")
    await reach(".skip")
    await press("Enter")
    await expect(page.locator("#box")).to_be_focused()


async def test_the_focus_is_at_the_box_when_the_button_that_was_pressed_is_gone(
    open_page: Open, upstream: ScriptedUpstream, gate: Gate
) -> None:
    page = await open_page()
    box = page.locator("#box")
    await say(page, "First")
    await answered(page)
    for button, keys in ((".regenerate", ""), (".question .edit", "!"), (".try-again", "")):
        if button == ".try-again":
            upstream.raw([b'data: {"choices":[{"delta":{"content":"Half an"}}]}\n\n'])
            await say(page, "Second")
        await page.focus(button)
        await page.keyboard.press("Enter")
        if keys:
            await page.keyboard.type(keys)
            await page.keyboard.press("Enter")
        await expect(box).to_be_focused()
        await answered(page, await page.locator(".answer").count())
        await expect(box).to_be_focused()
    upstream.reply(["a", "b"], gate=gate)
    await say(page, "Third")
    gate.release()
    await expect(page.locator(".answer .markdown").last).to_have_text("a")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await expect(page.locator(".about").last).to_contain_text("Stopped.")
    await expect(box).to_be_focused()


async def test_copying_without_a_clipboard_leaves_the_focus(open_page: Open, upstream: ScriptedUpstream) -> None:
    page = await open_page()
    await say(page, "First")
    await answered(page)
    await page.evaluate("void (navigator.clipboard.writeText = () => Promise.reject(new Error('plain http')))")
    await page.focus(".answer [aria-label=Copy]")
    await page.keyboard.press("Enter")
    await expect(page.locator(".answer [aria-label=Copied]")).to_be_focused()
    assert await page.evaluate("navigator.clipboard.readText()") == "Echo: First"


async def test_enter_that_chooses_a_character_does_not_send(open_page: Open, upstream: ScriptedUpstream) -> None:
    page = await open_page()
    await page.fill("#box", "ni hao")
    await page.evaluate(
        "document.querySelector('#box').dispatchEvent("
        "new KeyboardEvent('keydown', {key: 'Enter', isComposing: true, bubbles: true, cancelable: true}))"
    )
    await expect(page.locator("#box")).to_have_value("ni hao")
    assert upstream.requests == []
    await page.press("#box", "Enter")
    await answered(page)
    # Safari ends the composition first, and says by a code whose key it was.
    ends = "keyCode: 229, bubbles: true, cancelable: true"
    for selector, opener in ((".edit-area", ".question .edit"), (".conversations input", "[data-role=rename]")):
        await page.locator(opener).focus()
        await page.keyboard.press("Enter")
        for key in ("Enter", "Escape"):
            await page.locator(selector).evaluate(
                f"(n, key) => n.dispatchEvent(new KeyboardEvent('keydown', {{key, {ends}}}))", key
            )
        await expect(page.locator(selector)).to_be_focused()
        await page.keyboard.press("Escape")
    assert len(upstream.requests) == 1


async def test_a_screen_reader_hears_that_an_answer_comes_and_is_complete_and_no_single_word(
    open_page: Open, upstream: ScriptedUpstream, gate: Gate
) -> None:
    upstream.reply([f"word{n} " for n in range(50)], gate=gate)
    page = await open_page()
    await page.evaluate(
        """() => {
          window.heard = []
          new MutationObserver(() => heard.push(document.querySelector('#status').textContent))
            .observe(document.querySelector('#status'), {childList: true, subtree: true, characterData: true})
        }"""
    )
    await say(page, "Count")
    gate.open()
    await answered(page)
    assert await page.evaluate("heard") == ["Answering…", "The answer is complete."]
    live = await page.evaluate(
        "[...document.querySelectorAll('[aria-live], [role=status], [role=alert], [role=log]')]"
        ".filter(node => node.querySelector('.markdown') || node.closest('.markdown')).length"
    )
    assert live == 0
    tree = await page.locator("body").aria_snapshot()
    for line in (
        '- link "Skip to the message box"',
        '- navigation "Conversations"',
        "- main:",
        '- region "Messages"',
        '- article "You"',
        '- article "Answer"',
        '- textbox "Your message"',
        '- button "Send"',
        "- status: The answer is complete.",
    ):
        assert line in tree, tree


async def test_on_a_phone_nothing_scrolls_sideways_and_the_list_is_a_drawer(
    open_page: Open, upstream: ScriptedUpstream
) -> None:
    wide = (
        "```"
        + "l" * 90
        + "\nx\n```\n\n`"
        + "x" * 300
        + "`\n\n```\n"
        + "y" * 300
        + "\n```\n\n"
        + "z" * 300
        + "\n\n|"
        + " column |" * 30
        + "\n|"
        + "-|" * 30
    )
    upstream.reply([wide], tool_calls=[("call_1", "t" * 90, "{}")])
    page = await open_page(viewport={"width": 320, "height": 640}, has_touch=True, is_mobile=True)

    async def fits() -> None:
        assert await page.evaluate("document.documentElement.scrollWidth") <= 320
        assert await page.evaluate("document.querySelector('#scroller').scrollWidth") <= 320
        wide = "n => [...n.querySelectorAll('summary, .copy-code')].filter(m => m.getBoundingClientRect().right > 320)"
        assert await page.locator("#thread").evaluate(wide + ".map(m => m.className || m.tagName)") == []

    await fits()
    await expect(page.locator("#sidebar")).to_be_hidden()
    await say(page, "w" * 200)
    await answered(page)
    await fits()
    await page.click("#menu")
    await expect(page.locator(".conversations a")).to_be_visible()
    await expect(page.locator("#sidebar .new-chat")).to_be_focused()
    await shoot(page, "drawer")
    await fits()
    await page.keyboard.press("Escape")
    await expect(page.locator("#sidebar")).to_be_hidden()
    await expect(page.locator("#menu")).to_be_focused()
    await page.click("#menu")
    await page.click(".conversations a")  # which is open already
    await expect(page.locator("#sidebar")).to_be_hidden()
    await page.click("#menu")
    await page.click("#sidebar .new-chat")
    await expect(page.locator(".welcome")).to_be_visible()
    await expect(page.locator("#sidebar")).to_be_hidden()


async def test_the_browsers_language_chooses_the_words(open_page: Open, upstream: ScriptedUpstream) -> None:
    page = await open_page(locale="zh-CN")
    assert await page.evaluate("document.documentElement.lang") == "zh-Hans"
    await expect(page.locator(".welcome h2")).to_have_text("你在想什么？")
    await say(page, "你好")
    await answered(page)
    await expect(page.locator("#status")).to_have_text("回答完毕。")
    await expect(page.locator(".about")).to_have_text("model-a · 3 个词元")
    assert await complaints(page) == []
    german = await open_page(locale="de-DE")
    assert await german.evaluate("document.documentElement.lang") == "en"
    words = await page.evaluate("import('/assets/i18n.js').then(m => m.WORDS)")
    assert set(words["en"]) == set(words["zh"])
    holes = {lang: {key: sorted(text.split("{")[1:]) for key, text in words[lang].items()} for lang in words}
    for key in words["en"]:
        names = [{hole.split("}")[0] for hole in holes[lang][key]} for lang in ("en", "zh")]
        assert names[0] == names[1], key
    assert json.dumps(words["zh"]) != json.dumps(words["en"])


async def test_text_from_right_to_left_runs_so(open_page: Open, upstream: ScriptedUpstream) -> None:
    upstream.reply(["שלום עולם\n\nAnd English.\n\n- אחת\n- two\n\n> ציטוט\n\n1. one\n2. שתיים\n"])
    page = await open_page()
    await say(page, "مرحبا")
    await answered(page)
    # A list and a quotation run as they begin, with markers and lines at that side, and what is in them beside these.
    directions = await page.evaluate(
        "[...document.querySelectorAll('.bubble, .markdown > *, .markdown li')].map(n => getComputedStyle(n).direction)"
    )
    assert directions == ["rtl", "rtl", "ltr", "rtl", "rtl", "rtl", "rtl", "ltr", "ltr", "ltr"]
    starts = await page.evaluate(
        """[...document.querySelectorAll('.markdown li, .markdown blockquote p')].map(node => {
          const range = document.createRange()
          range.selectNodeContents(node)
          const [text, box] = [range.getBoundingClientRect(), node.getBoundingClientRect()]
          return box.right - text.right < 1 ? 'right' : text.left - box.left < 1 ? 'left' : 'nowhere'
        })"""
    )
    assert starts == ["right", "right", "right", "left", "left"]
    await shoot(page, "right-to-left")


async def test_it_is_dark_in_the_dark_and_still_for_those_who_want_no_motion(
    open_page: Open, upstream: ScriptedUpstream, gate: Gate
) -> None:
    brightness = "Number(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])"
    light = await open_page(color_scheme="light")
    assert await light.evaluate(brightness) > 200
    upstream.reply(["a", "b"], gate=gate)
    page = await open_page(color_scheme="dark", reduced_motion="reduce")
    assert await page.evaluate(brightness) < 60
    await say(page, "Count")
    gate.release()
    await expect(page.locator(".answer .markdown")).to_have_text("a")
    assert await page.evaluate("document.getAnimations().length") == 0
    await say(light, "Count")
    await expect(light.locator(".answer.writing .markdown, .answer .about")).not_to_have_count(0)
    gate.open()
    await answered(page)
