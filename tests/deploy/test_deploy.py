"""`docker compose up` is the whole deployment: what it serves, what it survives, what it leaves."""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

from aiohttp import ClientSession

from tests.deploy.deployment import Deployment
from tests.deploy.talk import Talk

log = logging.getLogger("deploy")

#: What is waited for comes in seconds; a busy machine may need longer.
PATIENCE = 60


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.2)


async def _owned(session: ClientSession, url: str) -> None:
    """Become an owner, as the page does before it POSTs."""
    async with session.get(f"{url}/conversations") as response:
        assert response.status == 200


def _asked(deployment: Deployment) -> dict[str, int]:
    (upstream,) = deployment.containers("upstream")
    code = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9001/asked').read().decode())"
    asked: dict[str, int] = json.loads(deployment.python(upstream, code))
    return asked


async def _check(talks: Iterable[Talk], deployment: Deployment) -> None:
    asked = _asked(deployment)
    for talk in talks:
        await talk.check()
        assert asked[talk.content] == 1


def _answering(deployment: Deployment, container: str) -> int:
    """Return how many connections a replica has to the model server."""
    code = "print(sum(l.split()[2].endswith(':2328') and l.split()[3] == '01' for l in open('/proc/net/tcp')))"
    return int(deployment.python(container, code))


def _kill(deployment: Deployment, container: str) -> None:
    """Kill -9 the service in a container, whose init is left to say so to the engine."""
    code = (
        "import os, pathlib\n"
        "for p in pathlib.Path('/proc').glob('[0-9]*/cmdline'):\n"
        "    if p.read_bytes() == b'python\\0-m\\0app\\0': os.kill(int(p.parent.name), 9)"
    )
    deployment.python(container, code, codes=(0, 137))  # what kills goes with the container that it ends


async def test_an_answer_streams_through_nginx_as_it_is_written(deployment: Deployment, session: ClientSession) -> None:
    async with asyncio.timeout(PATIENCE):
        talk = Talk(session, deployment.url, "count 60 every 0.05")
        await _owned(session, deployment.url)
        await talk.begin(until=5)
        # The reader has words while most of them are not even written.
        async with session.get(f"{deployment.url}/messages/{talk.reader.answer}") as response:
            message = await response.json()
        assert message["status"] == "streaming"
        assert len(message["content"]) < len(talk.expected) / 2
        other = talk.reader.again()
        await other.finish(session, deployment.url)
        await talk.finish()
    assert (talk.status, talk.refused) == ("completed", 0)
    assert other.text == talk.reader.text == talk.expected
    assert other.cursor == talk.reader.cursor == len(talk.expected) + 2
    await _check([talk], deployment)


async def test_replicas_that_are_added_are_asked_without_a_restart_of_the_proxy(
    deployment: Deployment, session: ClientSession
) -> None:
    (proxy,) = deployment.containers("proxy")
    started = deployment.inspect(proxy)["State"]["StartedAt"]
    deployment.up("--scale", "app=3")
    replicas = {f"{deployment.address(container)}:8080" for container in deployment.containers("app")}
    assert len(replicas) == 3
    asked: set[str] = set()
    async with asyncio.timeout(PATIENCE):
        while not replicas <= asked:
            async with session.get(f"{deployment.url}/health/ready") as response:
                assert response.status == 200
            lines = [json.loads(line) for line in deployment.log("proxy").splitlines() if line.startswith("{")]
            asked = {line["replica"] for line in lines}
    (proxy,) = deployment.containers("proxy")
    assert deployment.inspect(proxy)["State"]["StartedAt"] == started


async def test_a_replica_that_is_killed_costs_no_word_and_no_post_is_asked_twice(
    deployment: Deployment, session: ClientSession
) -> None:
    async with asyncio.timeout(2 * PATIENCE):
        await _owned(session, deployment.url)
        replicas = deployment.containers("app")
        assert len(replicas) == 3
        talks = [Talk(session, deployment.url, "count 900 every 0.02") for _ in range(12)]
        await asyncio.gather(*(talk.begin(until=10) for talk in talks))
        reading = [asyncio.create_task(talk.finish()) for talk in talks]
        # Others wait for the whole answer: nothing of a reply has come when their replica dies.
        waiting = [Talk(session, deployment.url, "count 700 every 0.02") for _ in range(9)]
        posts = [asyncio.create_task(_in_one_piece(session, deployment.url, talk.content)) for talk in waiting]
        await _until(lambda: all(talk.content in _asked(deployment) for talk in waiting))
        busy = {container: _answering(deployment, container) for container in replicas}
        victim = max(replicas, key=busy.__getitem__)
        log.info("answers by replica: %s", busy)
        await asyncio.to_thread(_kill, deployment, victim)
        await asyncio.gather(*reading, *posts)
        replies = [post.result() for post in posts]
    await _check(talks, deployment)
    statuses = {talk.status for talk in talks}
    assert statuses <= {"completed", "interrupted"}
    codes = [status for status, _ in replies]
    assert set(codes) <= {200, 503}
    assert "interrupted" in statuses or 503 in codes, "the replica that was killed had nothing to do"
    for talk, (status, body) in zip(waiting, replies, strict=True):
        assert _asked(deployment)[talk.content] == 1  # also where nginx had sent it, and got no reply
        if status == 200:
            assert body["message"]["content"] == talk.expected
        else:
            assert body["code"] == "shutting_down"
    # Its restart policy brings it back.
    await _until(lambda: deployment.inspect(victim)["State"].get("Health", {}).get("Status") == "healthy")
    assert deployment.inspect(victim)["RestartCount"] == 1


async def _in_one_piece(session: ClientSession, url: str, content: str) -> tuple[int, dict[str, Any]]:
    headers = {"Accept": "application/json"}
    async with session.post(f"{url}/messages", json={"content": content}, headers=headers) as response:
        return response.status, await response.json(content_type=None)


async def test_a_restart_of_redis_is_a_pause(deployment: Deployment, session: ClientSession) -> None:
    async with asyncio.timeout(PATIENCE):
        await _owned(session, deployment.url)
        talks = [Talk(session, deployment.url, "count 200 every 0.02") for _ in range(6)]
        await asyncio.gather(*(talk.begin(until=10) for talk in talks))
        reading = [asyncio.create_task(talk.finish()) for talk in talks]
        await asyncio.to_thread(deployment.compose, "restart", "redis")
        await asyncio.gather(*reading)
    assert [(talk.status, talk.broken) for talk in talks] == [("completed", 0)] * 6
    await _check(talks, deployment)


async def test_a_replica_that_is_stopped_finishes_its_answers_first(
    deployment: Deployment, session: ClientSession
) -> None:
    async with asyncio.timeout(PATIENCE):
        await _owned(session, deployment.url)
        talks = [Talk(session, deployment.url, "count 150 every 0.02") for _ in range(9)]
        await asyncio.gather(*(talk.begin(until=10) for talk in talks))
        reading = [asyncio.create_task(talk.finish()) for talk in talks]
        stopped = max(deployment.containers("app"), key=lambda container: _answering(deployment, container))
        await asyncio.to_thread(deployment.docker, "stop", stopped)
        assert deployment.inspect(stopped)["State"]["ExitCode"] == 0
        await asyncio.gather(*reading)
        deployment.docker("start", stopped)
    assert [talk.status for talk in talks] == ["completed"] * 9
    await _check(talks, deployment)


async def _under_load(deployment: Deployment, session: ClientSession, change: Callable[[], object]) -> list[Talk]:
    """Ask all the time, while something changes and for two more seconds; return what was asked."""
    await _owned(session, deployment.url)
    talks: list[Talk] = []
    going = [True]

    async def visitor(number: int) -> None:
        await asyncio.sleep(
            number * 0.2
        )  # whenever something happens, some answers are at their begin, and some at their end
        while going[0]:
            talk = Talk(session, deployment.url, "count 100 every 0.02")
            talks.append(talk)
            await talk.begin()
            await talk.finish()

    async with asyncio.timeout(3 * PATIENCE), asyncio.TaskGroup() as group:
        for number in range(10):
            group.create_task(visitor(number))
        await asyncio.sleep(2)
        try:
            await asyncio.to_thread(change)
            await asyncio.sleep(2)
        finally:
            going[0] = False
    return talks


def _another_version(deployment: Deployment) -> None:
    """Change what is built."""
    with (deployment.folder / "app" / "__init__.py").open("a") as file:
        file.write(f"# {time.time()}\n")


async def test_a_rolling_restart_under_load_refuses_nobody_and_loses_no_word(
    deployment: Deployment, session: ClientSession
) -> None:
    before = deployment.containers("app")
    _another_version(deployment)
    await _owned(session, deployment.url)
    # Answers that take longer than the grace of those who write them, and others who read them at any replica.
    long = [Talk(session, deployment.url, "count 3000 every 0.02") for _ in range(4)]
    await asyncio.gather(*(talk.begin(until=10) for talk in long))
    others = [talk.another() for talk in long * 3]
    reading = [asyncio.create_task(talk.finish()) for talk in (*long, *others)]
    talks = await _under_load(deployment, session, lambda: deployment.shell("make roll"))
    await asyncio.gather(*reading)
    after = deployment.containers("app")
    assert len(after) == len(before)
    assert set(after) & set(before) == set()
    log.info("%s", _summary(talks))
    log.info("Longer than the grace: %s", _summary([*long, *others]))
    await _check([*talks, *long, *others], deployment)
    assert [(talk.status, talk.refused, talk.broken) for talk in talks] == [("completed", 0, 0)] * len(talks)
    assert sum(talk.refused for talk in (*long, *others)) == 0


async def test_a_restart_of_all_replicas_at_once_under_load_loses_no_word(
    deployment: Deployment, session: ClientSession
) -> None:
    """With less grace than an answer takes, so that some are cut short: they end, and keep what was shown."""
    before = deployment.containers("app")
    deployment.settings(SHUTDOWN_GRACE_SECONDS=0.5)
    deployment.up("--no-deps", "app")
    _another_version(deployment)
    command = "docker compose up --detach --wait --no-deps --build app"
    talks = await _under_load(deployment, session, lambda: deployment.shell(command))
    assert set(deployment.containers("app")) & set(before) == set()
    log.info("%s", _summary(talks))
    await _check(talks, deployment)
    assert {talk.status for talk in talks} == {"completed", "interrupted"}


def _summary(talks: list[Talk]) -> str:
    return (
        f"{len(talks)} answers, {sum(talk.status == 'completed' for talk in talks)} completed, "
        f"{sum(talk.broken for talk in talks)} streams resumed, {sum(talk.refused for talk in talks)} told to come "
        f"again, longest wait for a first event {max(talk.waited for talk in talks):.1f} s"
    )
