"""Markdown while it is written: right at each moment, final where it is closed, and never dearer at the end."""

import asyncio
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.page.conftest import Open, answered, say, shoot
from tests.support.scripted_upstream import Gate, ScriptedUpstream

pytestmark = pytest.mark.asyncio(loop_scope="session")

SECTION = """## Part

Some **bold** words, a [link](https://example.org/), and `code`; then a list:

- one
- two with *emphasis*
  - and one within
- three

1. first
2. second

> A quotation
> of two lines

```python
def f(x):
    return {"x": x, "fence": "``"}
```

| a | b |
|---|---|
| 1 | 2 |

- [x] done
- [ ] to do

The end.

"""

DOCUMENTS = {
    "sections": SECTION * 2,
    "unfinished code": "Look:\n\n```js\nlet x = 1\nlet y",
    "code without an end": "~~~\na\n```\nb\n",
    "code with a longer fence": "````md\n```js\nx\n```\n````\nafter",
    "code right after words": "words\n```\ncode\n```\nmore words",
    "code that is indented": "  ```\n  a\n    b\n  ```\nafter",
    "code in a list": "1. do\n\n   ```sh\n   ls\n   ```\n\n2. done\n\nafter",
    "empty code": "```\n```\nafter",
    "two lists": "- a\n- b\n\n* c\n* d\n\n1. e\n\ntext\n\n3. f\n4. g",
    "a loose list": "- a\n\n- b\n\n  more of b\n\n- c\n\nafter",
    "a heading by underline": "Title\n===\n\nText\n---\n\nend",
    "a reference defined later": "See [this][1] and [that].\n\nWords.\n\n[1]: https://example.org/one\n[that]: https://example.org/two",
    "line ends of Windows": "a\r\n\r\n- b\r\n- c\r\n\r\n```\r\nd\r\n```\r\n",
    "many languages": "# 标题\n\n中文**粗体**文字。\n\nעברית ו-`code`\n\n🙂 emoji 👩‍👩‍👧",
    "html": "a <b>b</b> <i>c</i> <div>\n\n<div>x</div>\n\n1 < 2 && 3 > 2",
    "a long paragraph": "word " * 700 + "**bold** end\n\nafter\n\n" + "*a* b\n" * 400 + "\n- list",
    "a long table": "| a | b |\n|---|---|\n" + "| x | **y** |\n" * 200 + "\nafter",
    "a long quotation": "> words of somebody\n" * 200 + "\nafter",
    "a long nested list": "- top\n" + "  - nested **item**\n" * 200 + "- next\n\nafter",
    "nothing but space": "\n \n\n",
}

RENDER = """async ([text, size]) => {
  const {MarkdownStream} = await import('/assets/markdown.js')
  await import('/assets/vendor/highlight-11.12.0.js')
  const host = document.createElement('div')
  const stream = new MarkdownStream(host)
  for (let at = 0; at < text.length; at += size) stream.push(text.slice(at, at + size))
  stream.finish()
  await new Promise(done => setTimeout(done, 0))
  return host.innerHTML
}"""


async def test_a_text_that_came_in_pieces_looks_like_one_that_came_whole(open_page: Open) -> None:
    page = await open_page()
    for name, text in DOCUMENTS.items():
        whole = await page.evaluate(RENDER, [text, 1_000_000])
        for size in (1, 3) if len(text) < 1500 else (17,):
            assert await page.evaluate(RENDER, [text, size]) == whole, (name, size)


async def test_markdown_becomes_what_it_means(open_page: Open) -> None:
    page = await open_page()
    html = await page.evaluate(RENDER, [SECTION, 5])
    for piece in (
        '<h3 dir="auto">Part</h3>',
        "<strong>bold</strong>",
        'href="https://example.org/"',
        "<code>code</code>",
        "<li>two with <em>emphasis</em>",
        '<ol dir="auto">',
        '<blockquote dir="auto">',
        '<span class="code-language">python</span>',
        '<span class="hljs-keyword">def</span>',
        '<td dir="auto">1</td>',
        'type="checkbox"',
        '<p dir="auto">The end.</p>',
    ):
        assert piece in html
    assert "<ol" in await page.evaluate(RENDER, [DOCUMENTS["code in a list"], 1])
    html = await page.evaluate(RENDER, [DOCUMENTS["code in a list"], 1])
    assert html.count("<ol") == 1
    assert html.count("<li") == 2
    html = await page.evaluate(RENDER, [DOCUMENTS["code with a longer fence"], 1])
    assert "```js\nx\n```" in html
    assert '<p dir="auto">after</p>' in html
    html = await page.evaluate(RENDER, [DOCUMENTS["html"], 2])
    assert "<b>b</b>" in html
    assert "&lt;div&gt;x&lt;/div&gt;" in html
    assert html.count("https://example.org/") == 0
    html = await page.evaluate(RENDER, [DOCUMENTS["a reference defined later"], 1])
    assert 'href="https://example.org/one"' in html
    assert 'href="https://example.org/two"' in html


#: What small models write when they loop: nested deeper than a parser that calls itself can go.
ENDLESS = {"numbers": "1. " * 4000, "quotations": ">" * 8000, "quotations in pieces": "> " * 4000}


async def test_an_answer_that_no_parser_can_take_is_shown_as_it_stands(
    open_page: Open, upstream: ScriptedUpstream
) -> None:
    page = await open_page()
    for count, text in enumerate(ENDLESS.values(), 1):
        upstream.reply([text[at : at + 400] for at in range(0, len(text), 400)])
        await say(page, "Go on")
        await answered(page, count)
        await expect(page.locator(".answer .markdown").last).to_have_text(text.strip())
    await page.reload()
    await answered(page, len(ENDLESS))
    await expect(page.locator(".answer .markdown")).to_have_text([text.strip() for text in ENDLESS.values()])
    await say(page, "And now?")
    await expect(page.locator(".answer .markdown").last).to_have_text("Echo: And now?")


COST = """async pieces => {
  const {MarkdownStream} = await import('/assets/markdown.js')
  const host = document.createElement('div')
  document.querySelector('#thread').append(host)
  const stream = new MarkdownStream(host)
  const watch = new MutationObserver(() => {})
  watch.observe(host, {childList: true, subtree: true, characterData: true})
  return pieces.map(piece => {
    const before = stream.parsed
    for (const token of piece.match(/\\s*\\S+|\\s+$/g)) stream.push(token)
    const nodes = watch.takeRecords().reduce(
      (sum, r) => sum + (r.type === 'characterData' ? 1 : r.addedNodes.length + r.removedNodes.length), 0)
    return [stream.parsed - before, nodes]
  })
}"""


async def test_in_ten_thousand_words_the_last_part_costs_what_the_second_did(open_page: Open) -> None:
    page = await open_page()
    words = len(SECTION.split())
    count = 10_000 // words + 1
    costs: list[tuple[int, int]] = await page.evaluate(COST, [SECTION] * count)
    assert count * words >= 10_000
    assert len({tuple(cost) for cost in costs[1:]}) == 1  # exactly the same, in characters parsed and nodes touched
    parsed, nodes = costs[-1]
    assert parsed / words < 150
    assert nodes / words < 8


#: A block that goes on for ten thousand words: how it starts, and what is repeated.
BLOCKS = {
    "a paragraph": ("", "some words of a very long paragraph, "),
    "lines": ("", "a line of its own\n"),
    "a list": ("", "\n- an item with **some** words"),
    "a loose list": ("", "\n\n- an item with **some** words"),
    "a nested list": ("- top", "\n  - an item with **some** words"),
    "a table": ("| a | b | c |\n|---|---|---|", "\n| one | two | three |"),
    "a quotation": ("", "\n> somebody said so"),
    "code": ("```js", "\nlet value = compute(some, thing)"),
    "one line of code": ("```\n", " and more of the same line"),
}


async def test_one_block_of_ten_thousand_words_grows_no_dearer(open_page: Open) -> None:
    shapes = iter(BLOCKS)
    costs: dict[str, tuple[str, list[tuple[int, int]]]] = {}

    async def measure(page: Page) -> None:
        for shape in shapes:
            start, piece = BLOCKS[shape]
            tenth = piece * (1000 // len(piece.split()) + 1)
            costs[shape] = tenth, await page.evaluate(COST, [start + tenth, *([tenth] * 9)])

    # The dearest of all tests of the page: profiles have processes of their own, so two of them share it.
    await asyncio.gather(*[measure(page) for page in (await open_page(), await open_page())])
    assert costs.keys() == BLOCKS.keys()
    for shape, (tenth, (first, *others)) in costs.items():
        for parsed, nodes in others:
            # Never more than twice what the first thousand words have cost, and a bounded number for each character.
            assert parsed <= max(2 * first[0], 40 * len(tenth)), (shape, first, others)
            assert nodes <= 2 * first[1] + 10, (shape, first, others)


async def test_what_is_closed_is_never_touched_again(open_page: Open, upstream: ScriptedUpstream, gate: Gate) -> None:
    upstream.reply([SECTION, "Two ", "more ", "words."], gate=gate)
    page = await open_page()
    await say(page, "Write")
    gate.release()
    await expect(page.locator(".markdown")).to_contain_text("The end.")
    await expect(page.locator(".markdown .hljs-keyword").first).to_be_visible()
    await page.evaluate(
        """() => {
          window.touched = 0
          for (const block of [...document.querySelector('.answer .markdown').children].slice(0, -1))
            new MutationObserver(found => { window.touched += found.length })
              .observe(block, {childList: true, subtree: true, characterData: true, attributes: true})
        }"""
    )
    gate.open()
    await answered(page)
    await expect(page.locator(".markdown")).to_contain_text("Two more words.")
    assert await page.evaluate("window.touched") == 0


async def _end(page: Page) -> Any:
    return await page.evaluate(
        "() => { const s = document.querySelector('#scroller');"
        " return Math.round(s.scrollHeight - s.clientHeight - s.scrollTop) }"
    )


async def test_the_end_stays_in_sight_of_who_reads_it_and_who_scrolled_up_is_left_alone(
    open_page: Open, upstream: ScriptedUpstream, gate: Gate
) -> None:
    upstream.reply([f"Line {n}.\n\n" for n in range(120)], gate=gate)
    page = await open_page()
    await say(page, "Write")
    gate.release(40)
    await expect(page.locator(".markdown")).to_contain_text("Line 39.")
    assert await _end(page) <= 1
    await expect(page.locator("#latest")).to_be_hidden()
    await page.hover("#scroller")
    await page.mouse.wheel(0, -300)
    await expect(page.locator("#latest")).to_be_visible()
    top = await page.evaluate("document.querySelector('#scroller').scrollTop")
    gate.release(40)
    await expect(page.locator(".markdown")).to_contain_text("Line 79.")
    assert await page.evaluate("document.querySelector('#scroller').scrollTop") == top
    await shoot(page, "scrolled-up")
    await page.click("#latest")
    assert await _end(page) <= 1
    await expect(page.locator("#latest")).to_be_hidden()
    gate.open()
    await answered(page)
    await expect(page.locator(".markdown")).to_contain_text("Line 119.")
    assert await _end(page) <= 1


async def test_an_answer_of_ten_thousand_words_arrives_whole(open_page: Open, upstream: ScriptedUpstream) -> None:
    count = 10_000 // len(SECTION.split()) + 1
    upstream.reply([SECTION] * count)
    page = await open_page()
    async with asyncio.timeout(20):
        await say(page, "Write a lot")
        await answered(page)
    assert len(upstream.requests) == 1, await page.locator(".answer").inner_text()
    assert await page.locator(".answer h3").count() == count
    assert await page.locator(".answer .code").count() == count
