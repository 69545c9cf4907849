"""The README's picture of the page: made here, and committed."""

import pytest
from playwright.async_api import expect

from tests.page.conftest import Open, answered, say, shoot
from tests.support.scripted_upstream import Gate, ScriptedUpstream
from tests.support.service import ROOT

pytestmark = pytest.mark.asyncio(loop_scope="session")

PICTURE = ROOT / "tests" / "page" / "screenshot.png"
ANSWER = """Every answer is written to the store **before** anyone sees it, so a reader can always take it up again:

```js
import {connect} from '/client.js'

const answer = connect().send('Hello!')
for await (const event of answer) show(event)
```

1. The tab reloads: the words so far are there, and the next ones come.
2. The network drops: the client asks for what follows the last word it has.
3. The server dies: another one"""


async def test_the_readme_shows_the_page_as_it_is(open_page: Open, upstream: ScriptedUpstream, gate: Gate) -> None:
    page = await open_page(viewport={"width": 1080, "height": 720})
    for title in ("A name for a lighthouse", "Reversing a list in Python"):
        await say(page, title)
        await answered(page)
        await page.click("#sidebar .new-chat")
    upstream.reply(
        [ANSWER, " goes on."], reasoning=["The reader asks about resuming."], usage=(31, 120, 151), gate=gate
    )
    await say(page, "What happens to an answer when I close the page?")
    gate.release(2)
    await expect(page.locator(".answer li")).to_have_count(3)
    await expect(page.locator(".hljs-keyword").first).to_be_visible()
    await expect(page.locator(".conversations a")).to_have_count(3)
    await page.mouse.move(700, 20)
    made = await shoot(page, "readme")
    # The committed picture is a copy of this one, made anew when the page changes: cp tests/output/page/readme.png there.
    committed = PICTURE.read_bytes()
    assert committed.startswith(b"\x89PNG")
    assert committed[16:24] == made.read_bytes()[16:24]  # of the same size
    assert len(committed) < 150_000
    assert "](tests/page/screenshot.png)" in (ROOT / "README.md").read_text("utf-8")
