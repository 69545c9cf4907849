"""The measurements run, and see a wrong answer; what they measure is not looked at."""

import asyncio
import json
from pathlib import Path

import pytest

from tests.bench.history import History
from tests.bench.one_piece import OnePiece
from tests.bench.open_streams import OpenStreams
from tests.bench.run import bench
from tests.bench.script import Script
from tests.bench.startup import Startup
from tests.bench.streams import Streams
from tests.bench.table import changes, table
from tests.support.service import ROOT


def _tiny(how: str, herd: int = 0) -> Streams:
    script = Script(6, 100, 1, how)
    return Streams(name="tiny", title="2 streams", streams=2, script=script, spread=0.01, herd=herd, stack=False)


async def test_a_run_prints_a_table_without_a_wrong_answer_and_saves_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "bench.json"
    assert await bench([_tiny("cut", herd=3)], 1, saved) == 0
    table = capfd.readouterr().out
    assert "| wrong answers | 0 | 0 |  | 0 |  | 0 |" in table
    assert len({line.count(" | ") for line in table.splitlines() if line.startswith("|")}) == 1
    figures = json.loads(saved.read_text())["figures"]["tiny"]
    assert figures["parley_us_per_token"] > 0
    assert figures["pipe_us_per_token"] > 0


async def test_an_answer_that_is_not_the_expected_one_is_counted(tmp_path: Path) -> None:
    # Two streams at each of the upstream itself, the pipe and Parley.
    assert await bench([_tiny("wrong")], 1, tmp_path / "bench.json") == 6


def test_the_readme_shows_the_table_as_it_is_printed() -> None:
    section = (ROOT / "README.md").read_text("utf-8").partition("## What a token costs")[2].partition("\n## ")[0]
    assert table([]) in section


def test_a_run_says_what_is_another_than_before_by_more_than_noise() -> None:
    before = {"S2": {"parley_us_per_token": 40.0, "ratio": 1.0, "pipe_us_per_token": 40.0}, "old": {"ratio": 1.0}}
    now = {"S2": {"parley_us_per_token": 44.0, "ratio": 1.04, "pipe_us_per_token": 80.0}, "new": {"ratio": 9.0}}
    assert changes(now, before) == ["S2 parley_us_per_token: 44, was 40 (+10%)"]


async def test_the_other_scenarios_run_too() -> None:
    # All at the same time: what they measure is not looked at here.
    history, open_streams, one_piece, startup = await asyncio.gather(
        History(short=1, long=3, posts=1, stack=False).run(1),
        OpenStreams(streams=3, script=Script(8, 4), spread=0.1, look=0.1, settle=0.3).run(1),
        OnePiece(requests=4, many=2, stack=False).run(1),
        Startup(conversations=1).run(1),
    )
    assert (open_streams.wrong, one_piece.wrong) == (0, 0)
    assert history.figures["long_sent"] >= history.figures["short_sent"] == 3
    assert startup.figures.keys() == {"new_ms", "used_ms"}
