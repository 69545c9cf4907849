"""`/metrics`: each number moves by what happened, for one process and for several."""

import asyncio
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, CookieJar, TCPConnector
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from app.domain.measures import ROW_CELLS, Board, Measures
from tests.conftest import Client, Start
from tests.support.browser import ask
from tests.support.reader import Reader
from tests.support.scripted_upstream import ScriptedUpstream
from tests.support.service import ServiceProcess
from tests.support.store import StoreProcess

TOKEN = "metrics-0123456789"
AUTHORIZATION = {"Authorization": f"Bearer {TOKEN}"}
ROOT = Path(__file__).parents[2]

Numbers = dict[str, float]


def numbers(text: str) -> Numbers:
    """Return the samples of a scrape by name and labels."""
    found = {}
    for family in parse(text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


async def scrape(client: Client) -> Numbers:
    async with client.get("/metrics", headers=AUTHORIZATION) as response:
        assert response.status == 200
        return numbers(await response.text())


async def until(client: Client, name: str, value: float) -> Numbers:
    """Scrape until a number is there: some are counted just after their reader has heard of it."""
    async with asyncio.timeout(10):
        while (found := await scrape(client))[name] != value:
            await asyncio.sleep(0.01)
    return found


def moved(before: Numbers, after: Numbers) -> Numbers:
    """Return what has changed, and by how much, but for times, commits and the scrapes themselves."""
    passing = re.compile(r"_seconds_|_commands_|_loop_lag_|route=/metrics")
    return {
        name: value - before[name]
        for name, value in after.items()
        if value != before[name] and not passing.search(name)
    }


@pytest.fixture
async def watched(start: Start) -> Client:
    return await start(metrics_token=TOKEN)


async def test_an_answer_counts_with_its_status_its_tokens_its_reader_and_its_requests(
    watched: Client, upstream: ScriptedUpstream
) -> None:
    before = await scrape(watched)
    gate = upstream.gate()
    upstream.reply(["one ", "two ", "three"], gate=gate)
    gate.release()
    async with asyncio.timeout(30), watched.post("/messages", json={"content": "Hi"}) as response:
        reader = Reader()
        await reader.read(response, until=5)
        running = moved(before, await scrape(watched))
        assert running == {"parley_answers_running": 1, "parley_readers": 1}
        gate.open()
        await reader.read(response)
    after = await until(watched, "parley_readers", 0)
    after = await until(watched, "parley_requests_total{method=POST,route=/messages,status=2xx}", 1)
    assert moved(before, after) == {
        "parley_answers_total{status=completed}": 1,
        "parley_requests_total{method=POST,route=/messages,status=2xx}": 1,
    }
    counts = {name: after[name] - before[name] for name in after if name.endswith("_count")}
    assert counts["parley_first_token_seconds_count"] == 1
    assert counts["parley_token_seconds_count"] == 2
    assert counts["parley_commit_seconds_count"] == counts["parley_commit_commands_count"] >= 4
    assert after["parley_commit_commands_sum"] >= counts["parley_commit_commands_count"]
    for name in ("parley_first_token_seconds", "parley_token_seconds", "parley_commit_seconds"):
        assert after[f"{name}_bucket{{le=+Inf}}"] == after[f"{name}_count"]
        assert after[f"{name}_sum"] > before[f"{name}_sum"]


async def test_what_the_upstream_does_wrong_counts_by_code_and_so_do_the_retries(
    watched: Client, upstream: ScriptedUpstream
) -> None:
    before = await scrape(watched)
    upstream.error(500)
    upstream.error(429)
    await ask(watched, "Hi")
    upstream.error(401)
    async with watched.post("/messages", json={"content": "Hi"}, headers={"Accept": "application/json"}) as response:
        assert response.status == 502
    after = await until(watched, "parley_requests_total{method=POST,route=/messages,status=5xx}", 1)
    change = moved(before, after)
    assert change.pop("parley_requests_total{method=POST,route=/messages,status=2xx}") == 1
    assert change == {
        "parley_answers_total{status=completed}": 1,
        "parley_answers_total{status=failed}": 1,
        "parley_upstream_errors_total{code=upstream_error}": 1,
        "parley_upstream_errors_total{code=upstream_rate_limited}": 1,
        "parley_upstream_errors_total{code=upstream_refused}": 1,
        "parley_upstream_retries_total": 2,
        "parley_problems_total{code=upstream_refused}": 1,
        "parley_requests_total{method=POST,route=/messages,status=5xx}": 1,
    }


async def test_requests_that_are_refused_count_by_code_and_unknown_paths_make_no_series(watched: Client) -> None:
    before = await scrape(watched)
    for path in ("/nothing", "/at/all", f"/conversations/conv_{'0' * 32}"):
        async with watched.get(path) as response:
            assert response.status == 404
    async with watched.post("/messages", data=b"{", headers={"Content-Type": "application/json"}) as response:
        assert response.status == 400
    after = await scrape(watched)
    assert moved(before, after) == {
        "parley_requests_total{method=other,route=none,status=4xx}": 2,
        "parley_requests_total{method=GET,route=/conversations/{id},status=4xx}": 1,
        "parley_requests_total{method=POST,route=/messages,status=4xx}": 1,
        "parley_problems_total{code=not_found}": 3,
        "parley_problems_total{code=invalid_json}": 1,
    }
    assert set(after) == set(before)


async def test_a_store_that_goes_away_counts_as_an_outage(watched: Client, store_process: StoreProcess) -> None:
    before = await scrape(watched)
    assert (before["parley_store_away"], before["parley_store_outages_total"]) == (0, 0)
    store_process.kill()
    try:
        away = await until(watched, "parley_store_away", 1)
        assert away["parley_store_outages_total"] == 1
        assert away["parley_store_errors_total"] >= 1
    finally:
        store_process.spawn()
    back = await until(watched, "parley_store_away", 0)
    assert back["parley_store_outages_total"] == 1


async def test_the_loops_lag_is_looked_at(watched: Client) -> None:
    before = await scrape(watched)
    await until(watched, "parley_loop_lag_seconds_count", before["parley_loop_lag_seconds_count"] + 1)


async def test_metrics_are_for_those_who_bring_the_token_only(watched: Client, start: Start) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}):
        async with watched.get("/metrics", headers=headers) as response:
            assert response.status == 401
            assert response.headers["WWW-Authenticate"].startswith("Bearer ")
            assert "parley_" not in (await response.text()).replace('realm="parley"', "")
    without = await start()
    async with without.get("/metrics", headers=AUTHORIZATION) as response:
        assert response.status == 404


async def test_openmetrics_is_spoken_to_those_who_ask_for_it(watched: Client) -> None:
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    async with watched.get("/metrics", headers=AUTHORIZATION | accept) as response:
        assert response.content_type == "application/openmetrics-text"
        names = {family.name for family in parse_openmetrics(await response.text())}  # type: ignore[no-untyped-call]
    assert {"parley_answers", "parley_token_seconds", "parley_build"} <= names


@pytest.mark.parametrize("version", ["abc", "1.x"])
@pytest.mark.parametrize("kind", ["application/openmetrics-text", "text/plain"])
async def test_a_version_that_is_none_gets_the_plain_text(watched: Client, kind: str, version: str) -> None:
    accept = {"Accept": f"{kind};version={version}"}
    async with watched.get("/metrics", headers=AUTHORIZATION | accept) as response:
        assert (response.status, response.content_type) == (200, "text/plain")
        assert "parley_build_info" in await response.text()


async def test_the_readme_lists_what_is_exposed_with_its_labels(watched: Client) -> None:
    async with watched.get("/metrics", headers=AUTHORIZATION) as response:
        families = list(parse(await response.text()))
    exposed = {}
    for family in families:
        labels = {name for sample in family.samples for name in sample.labels} - {"le"}
        suffix = "_total" if family.type == "counter" else ""
        exposed[family.name + suffix] = (family.type, labels)
    readme = (ROOT / "README.md").read_text("utf-8")
    rows = re.findall(r"^\| `(parley_\w+)` \| (\w+) \|([^|]*)\|", readme, re.MULTILINE)
    kinds = {"info": "gauge"}  # that is how the older format says it
    told = {name: (kinds.get(kind, kind), set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    assert told == exposed


async def test_a_port_of_its_own_gives_the_sum_over_all_workers_and_so_does_the_token(
    upstream: ScriptedUpstream,
) -> None:
    with tempfile.TemporaryDirectory(prefix="parley-") as path:
        service = await ServiceProcess(
            Path(path),
            workers=2,
            metrics_port=0,
            metrics_token=TOKEN,
            openai_base_url=upstream.base_url,
            openai_api_key="sk-test-0123456789",
        ).start()
        try:
            async with ClientSession(
                cookie_jar=CookieJar(unsafe=True), connector=TCPConnector(force_close=True)
            ) as session:
                await _sums(service, session)
        finally:
            service.close()


async def _sums(service: ServiceProcess, session: ClientSession) -> None:
    async with asyncio.timeout(30):
        for _ in range(8):
            async with session.post(f"{service.url}/messages", json={"content": "Hi"}) as response:
                await Reader().read(response)
        match = re.search(r"Metrics at (http://\S+)\.", service.log)
        assert match is not None
        want = {
            "parley_answers_total{status=completed}": 8,
            "parley_first_token_seconds_count": 8,
            "parley_requests_total{method=POST,route=/messages,status=2xx}": 8,
            "parley_answers_running": 0,
        }
        answers: list[dict[str, Any]] = []
        for url, headers in ((match[1], {}), (f"{service.url}/metrics", AUTHORIZATION)):
            while True:
                async with session.get(url, headers=headers) as response:
                    assert response.status == 200
                    found = numbers(await response.text())
                if all(found[name] == value for name, value in want.items()):
                    break
                await asyncio.sleep(0.01)
            answers.append(found)
    assert set(answers[0]) == set(answers[1])
    milliseconds = answers[0]["parley_commit_seconds_sum"] * 1000
    assert abs(milliseconds - round(milliseconds)) > 1e-6, "a commit takes less than one: whole ones say nothing"


def test_a_process_that_takes_a_dead_ones_row_goes_on_counting_and_what_held_then_holds_no_more() -> None:
    board = Board(2)
    first, other = Measures(board, 0), Measures(board, 1)
    for measures in (first, other):
        measures.answer_begun()
        measures.reader_came()
        measures.answer_ended("completed")
    fresh = Measures(board, 0)
    fresh.answer_ended("completed")
    sums = board.sums()
    named = {family.name: family.first for family in fresh.families}
    assert sums[named["parley_answers"]] == 3
    assert (sums[named["parley_answers_running"]], sums[named["parley_readers"]]) == (1, 1)
    assert len(sums) == ROW_CELLS
