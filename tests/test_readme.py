"""The README's commands work as written, and show what it shows."""

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from aiohttp import ClientSession

from tests.support.needs import needs
from tests.support.otlp import receiving
from tests.support.service import ServiceProcess
from tests.support.sse import parse_all

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def _commands(word: str) -> list[str]:
    """Return the shell blocks with a word, in order."""
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    return [block for block in blocks if word in block]


def _settings(line: str) -> dict[str, str]:
    """Return the settings of a line that is nothing but them and `make run`."""
    *words, make, run = line.split()
    assert (make, run) == ("make", "run")
    return {name.lower(): value for name, value in (word.split("=", 1) for word in words)}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service() -> AsyncIterator[ServiceProcess]:
    """The service with no setting at all, as `make run` starts it, but on a free port; each test is an owner of its own."""
    with tempfile.TemporaryDirectory(prefix="parley-") as path:
        process = await ServiceProcess(Path(path)).start()
        yield process
        process.close()


async def _shell(script: str, service: ServiceProcess) -> str:
    script = script.replace("http://127.0.0.1:8080", service.url)
    process = await asyncio.create_subprocess_exec(
        *("bash", "-eu", "-o", "pipefail", "-c", script), stdout=subprocess.PIPE, cwd=service.folder
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, script
    return output.decode()


async def test_the_curl_commands_do_what_the_readme_says(service: ServiceProcess) -> None:
    stream, ask, read, resume, stop = _commands("curl")
    async with asyncio.timeout(90):
        first = parse_all(await _shell(stream, service))
        assert [first[0].event, first[-1].event] == ["start", "end"]
        assert first[-1].json["status"] == "completed"
        shown = re.findall(r"^id: (\d+)$", README, re.MULTILINE)
        assert [*(frame.id for frame in first[:3]), first[-1].id] == shown
        assert [frame.data for frame in first[1:3]] == ["I", " am"]

        whole = await _shell(ask, service)
        assert '"status":"completed"' in whole
        assert "Hello!" in whole  # the demo quotes what was said before

        script = ask.split("\n")[0] + "\n"
        conversation = await _shell(script + read, service)
        assert conversation.count('"role":"user"') == 2

        rest = parse_all(await _shell(script + resume + "\ncat part > seen", service))
        seen = parse_all((service.folder / "seen").read_text("utf-8"))
        assert rest[-1].event == "end"
        assert int(seen[-1].id) < int(rest[-1].id)
        answer = seen[0].json["message"]
        stopped = await _shell(f"ANSWER={answer}\n{stop}", service)
        text = "".join(frame.data for frame in seen + rest if frame.event == "message")
        assert f'"id":"{answer}"' in stopped
        assert text.split("\n")[-1] in stopped


async def test_the_lines_for_tokens_let_in_who_brings_what_they_print(tmp_path: Path) -> None:
    ((new, serve),) = (block.splitlines() for block in _commands("token new"))
    process = await asyncio.create_subprocess_exec(
        *("bash", "-euc", new.replace(".venv/bin/python", sys.executable)),
        stdout=subprocess.PIPE,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0
    service = await ServiceProcess(tmp_path, **_settings(serve)).start()
    try:
        async with ClientSession() as session:
            seen = []
            for headers in ({}, {"Authorization": f"Bearer {printed.decode().split()[-1]}"}):
                async with session.get(f"{service.url}/conversations", headers=headers) as response:
                    seen.append(response.status)
    finally:
        service.close()
    assert seen == [401, 200]


async def test_the_lines_for_traces_send_them_to_a_collector(tmp_path: Path) -> None:
    ((install, serve),) = (block.splitlines() for block in _commands("OTEL_"))
    python, rest = install.split(" -m pip install ")
    assert python == ".venv/bin/python"
    # They are among those for the tests: nothing is to be installed, nor would it be.
    command = (sys.executable, "-m", "pip", "install", "--dry-run", *rest.split())
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, cwd=ROOT)
    said, _ = await process.communicate()
    assert process.returncode == 0
    assert b"Would install" not in said
    async with receiving() as receiver:
        settings = _settings(serve)
        assert settings.keys() == {"otel_exporter_otlp_endpoint"}
        settings = dict.fromkeys(settings, receiver.url)
        service = await ServiceProcess(tmp_path, **settings, otel_bsp_schedule_delay="100").start()
        try:
            async with ClientSession() as session, session.get(f"{service.url}/models") as response:
                assert response.status == 200
            assert await receiver.named("GET /models")
        finally:
            service.close()


def test_make_knows_every_target_that_the_readme_names() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"make ([a-z-]+)", README))
    assert {"run", "test", "lint", "soak", "lock"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


#: What a browser has and Node has not: addresses without a host, and cookies.
BROWSER = """
const real = globalThis.fetch
let cookie = ''
globalThis.fetch = async (path, options = {}) => {
  const reply = await real(process.env.PARLEY + path, {...options, headers: {...options.headers, cookie}})
  cookie = reply.headers.get('set-cookie')?.split(';')[0] ?? cookie
  return reply
}
"""


async def test_the_lines_for_the_client_read_the_whole_answer(service: ServiceProcess) -> None:
    node = needs("node", "run the README's JavaScript")
    block, _ = re.findall(r"```js\n(.*?)```", README, re.DOTALL)
    client = (ROOT / "app" / "page" / "client.js").as_uri()
    loaded = block.replace(
        "import {send} from '/client.js'", f"const {{send, conversations}} = await import('{client}')"
    )
    script = (
        f"{BROWSER}\nlet shown = ''\nconst show = text => {{ shown += text }}\n{loaded}\n"
        "console.log(JSON.stringify({shown, final: await answer.message, list: await conversations()}))"
    )
    async with asyncio.timeout(60):
        process = await asyncio.create_subprocess_exec(
            *(node, "--input-type=module", "-e", script),
            stdout=subprocess.PIPE,
            env=os.environ | {"PARLEY": service.url},
        )
        output, _ = await process.communicate()
    assert process.returncode == 0
    result = json.loads(output)
    assert result["shown"].startswith("I am Parley's built-in demo model")
    assert result["shown"].endswith("start the service again.")
    assert result["final"]["content"] == result["shown"]
    assert result["final"]["status"] == "completed"
    assert len(result["list"]["conversations"]) == 1
