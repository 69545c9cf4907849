"""What the README says of the deployment: its commands as written, and what an attacker finds."""

import asyncio
import json
from typing import Any

from aiohttp import ClientError, ClientSession

from app.upstream.demo_answer import Message, compose
from tests.deploy.deployment import Deployment, commands
from tests.deploy.upstream import KEY
from tests.support.reader import Reader

ANSWER = compose([Message("user", "Hello!")])


async def _demo(session: ClientSession, url: str) -> Reader:
    reader = Reader()
    async with session.post(f"{url}/messages", json={"content": "Hello!"}) as response:
        await reader.read(response)
    return reader


async def _until_ready(session: ClientSession, url: str) -> None:
    while True:
        try:
            async with session.get(f"{url}/health/ready") as response:
                if response.status == 200:
                    return
        except (ClientError, OSError):
            pass
        await asyncio.sleep(0.1)


async def test_the_commands_work_as_written_and_without_settings_the_demo_answers(
    plain: Deployment, session: ClientSession
) -> None:
    up, scale, roll, look, down, alone = commands("Deploy")
    async with asyncio.timeout(240):
        await asyncio.to_thread(plain.shell, up)
        reader = await _demo(session, plain.url)
        assert (reader.text, reader.end and reader.end["status"]) == (ANSWER, "completed")
        assert len(plain.containers("app")) == 2
        await asyncio.to_thread(plain.shell, scale)
        before = plain.containers("app")
        assert len(before) == 3
        await asyncio.to_thread(plain.shell, roll)
        after = plain.containers("app")
        assert (len(after), set(after) & set(before)) == (3, set())
        assert "maxmemory:536870912" in plain.shell(look).replace("\r", "")
        await asyncio.to_thread(plain.shell, down)
        assert plain.containers("app") == []
        await asyncio.to_thread(plain.shell, up)
        async with session.get(f"{plain.url}/messages/{reader.answer}") as response:
            assert (await response.json())["content"] == ANSWER
        await asyncio.to_thread(plain.compose, "down", "--volumes", "--rmi", "local", "--timeout", "3")
        assert plain.left() == []
        try:
            await asyncio.to_thread(plain.shell, alone.replace("parley", plain.project))
            await _until_ready(session, plain.url)
            assert (await _demo(session, plain.url)).text == ANSWER
            plain.docker("stop", plain.project)
            assert plain.inspect(plain.project)["State"]["ExitCode"] == 0
        finally:
            plain.docker("rm", "--force", "--volumes", plain.project)
            plain.docker("volume", "rm", "--force", plain.project)
            plain.docker("image", "rm", "--force", plain.project)


def test_every_container_runs_without_rights_on_a_file_system_that_it_cannot_write(deployment: Deployment) -> None:
    for service in ("proxy", "app", "redis"):
        for container in deployment.containers(service):
            about = deployment.inspect(container)
            assert about["Config"]["User"] not in ("", "root", "0"), service
            host = about["HostConfig"]
            assert (host["ReadonlyRootfs"], host["CapDrop"], host["CapAdd"]) == (True, ["ALL"], None)
            assert host["SecurityOpt"] == ["no-new-privileges:true"]
            assert min(host["Memory"], host["NanoCpus"], host["PidsLimit"]) > 0
            assert host["RestartPolicy"]["Name"] == "unless-stopped"
            published = [bound for bound in about["NetworkSettings"]["Ports"].values() if bound]
            assert len(published) == (service == "proxy")
            status = deployment.docker("exec", container, "cat", "/proc/1/status")
            lines = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
            assert (lines["CapEff"], lines["NoNewPrivs"]) == ("0" * 16, "1"), service
            assert lines["Uid"].split()[1] != "0"
            deployment.docker("exec", container, "touch", "/etc/written", codes=(1,))
    store = f"{deployment.project}_store"
    (proxy,) = deployment.containers("proxy")
    assert store not in deployment.inspect(proxy)["NetworkSettings"]["Networks"]
    assert json.loads(deployment.docker("network", "inspect", store))[0]["Internal"] is True


def test_the_image_has_no_tools_to_install_or_build_with(deployment: Deployment) -> None:
    container = deployment.containers("app")[0]
    code = (
        "import importlib.util as u, shutil\n"
        "print([m for m in ('pip', 'ensurepip') if u.find_spec(m)],"
        " [t for t in ('pip', 'pip3', 'gcc', 'cc', 'make', 'curl', 'wget') if shutil.which(t)])"
    )
    assert deployment.python(container, code) == "[] []\n"
    assert deployment.docker("exec", container, "/usr/local/bin/python3", "-c", code) == "[] []\n"


def test_redis_wants_a_password_that_no_log_and_no_description_shows(deployment: Deployment) -> None:
    (redis,) = deployment.containers("redis")
    assert "NOAUTH" in deployment.docker("exec", redis, "redis-cli", "ping")
    password = deployment.docker("exec", redis, "cat", "/data/password")
    assert len(password) == 64
    for service in ("proxy", "app", "redis", "upstream"):
        said = deployment.log(service)
        for container in deployment.containers(service):
            said += json.dumps(deployment.inspect(container))
        for secret in (password, KEY, "parley_owner="):
            assert secret not in said, service


async def test_the_client_s_address_is_the_real_one_whatever_it_says(
    deployment: Deployment, session: ClientSession
) -> None:
    """Seen by the limit of an address: whoever names a new address with each message is still one client."""
    deployment.settings(LIMIT_ADDRESS_MESSAGES_PER_MINUTE=4)
    await asyncio.to_thread(deployment.up, "--no-deps", "app")
    async with asyncio.timeout(60):
        statuses = []
        for number in range(6):
            headers = {"X-Forwarded-For": f"198.51.100.{number}", "Forwarded": f"for=198.51.100.{number}"}
            body = {"content": "count 1 every 0"}
            async with session.post(f"{deployment.url}/messages", json=body, headers=headers) as response:
                statuses.append(response.status)
                await response.read()
        assert statuses == [200] * 4 + [429] * 2
    # Another client, in a container, is counted for itself.
    (upstream,) = deployment.containers("upstream")
    code = (
        "import urllib.request as r\n"
        "q = r.Request('http://proxy:8080/messages', b'{\"content\": \"count 1 every 0\"}',"
        " {'Content-Type': 'application/json'})\n"
        "print(r.urlopen(q).status)"
    )
    assert deployment.python(upstream, code) == "200\n"
    lines = [json.loads(line) for line in deployment.log("proxy").splitlines() if line.startswith("{")]
    assert {line["address"] for line in lines if line["status"] == 429} & {f"198.51.100.{n}" for n in range(6)} == set()
    assert deployment.address(upstream) in {line["address"] for line in lines if line["path"] == "/messages"}
    deployment.settings(LIMIT_ADDRESS_MESSAGES_PER_MINUTE=0)
    await asyncio.to_thread(deployment.up, "--no-deps", "app")


async def test_what_nginx_refuses_or_compresses_looks_as_from_the_service(
    deployment: Deployment, session: ClientSession
) -> None:
    async with session.post(f"{deployment.url}/messages", json={"content": "x" * 262_144}) as response:
        body: dict[str, Any] = await response.json(content_type=None)
        assert (response.status, body["code"]) == (413, "too_large")
        assert response.content_type == "application/problem+json"
        assert body["request_id"] == response.headers["X-Request-ID"]
    async with session.get(f"{deployment.url}/openapi.json", headers={"Accept-Encoding": "gzip"}) as response:
        assert (response.status, response.headers["Content-Encoding"]) == (200, "gzip")
    named = {"X-Request-ID": "asked-by-a-test", "Accept-Encoding": "gzip"}
    body = {"content": "count 3 every 0"}
    async with session.post(f"{deployment.url}/messages", json=body, headers=named) as response:
        assert "Content-Encoding" not in response.headers
        assert response.headers["X-Request-ID"] == "asked-by-a-test"
        await response.read()
    # Metrics have a port of their own, which nobody publishes.
    async with session.get(f"{deployment.url}/metrics") as response:
        assert response.status == 404
    told = "import urllib.request as r; print('parley' in r.urlopen('http://127.0.0.1:9100/metrics').read().decode())"
    assert deployment.python(deployment.containers("app")[0], told) == "True\n"
    replicas = deployment.containers("app")
    deployment.docker("stop", *replicas)
    async with session.post(f"{deployment.url}/messages", json=body) as response:
        assert (response.status, (await response.json(content_type=None))["code"]) == (503, "shutting_down")
        assert response.headers["Retry-After"] == "1"
    deployment.docker("start", *replicas)
    await asyncio.to_thread(deployment.up, "--no-recreate")
