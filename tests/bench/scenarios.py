"""What is measured by default, and the sizes of it.

Streams begin a hundred a second: 500 of them whose answers take 8 s, asked again when they end, would begin 60 a second.
"""

from collections.abc import Iterator

from tests.bench.history import History
from tests.bench.one_piece import OnePiece
from tests.bench.open_streams import OpenStreams
from tests.bench.script import Script
from tests.bench.startup import Startup
from tests.bench.streams import Streams
from tests.bench.table import Scenario
from tests.bench.workers import Workers


def scenarios(*, quick: bool = False) -> Iterator[Scenario]:
    """Yield all scenarios; `quick`: shorter answers, no FastAPI stack."""
    part = 2 if quick else 1
    stack = not quick
    yield Streams(
        name="S2",
        title="100 streams of 50 tokens/s",
        streams=100,
        script=Script(250 // part, 50),
        spread=1,
        herd=25,
        stack=stack,
        cpu_goal="1.0 x pipe",
        first_goal="+2 / +10",
        gap_goal="+10",
    )
    yield Streams(
        name="S3",
        title="500 streams of 30 tokens/s",
        streams=500,
        script=Script(250 // part, 30),
        spread=5,
        herd=15,
        stack=stack,
        cpu_goal="1.0 x pipe",
        first_goal="p99 +30",
    )
    yield Streams(
        name="S4",
        title="50 streams as fast as possible",
        streams=50,
        script=Script(2000),
        repeat=2,
        stack=stack,
        cpu_goal="1.5 x pipe, reads alike",
    )
    yield Streams(
        name="S4-paced",
        title="50 streams of 800 tokens/s, 8 in each write",
        streams=50,
        script=Script(1600 // part, 800, 8),
        spread=1,
        repeat=2,
        stack=False,
        cpu_goal="1.5 x pipe",
    )
    yield Streams(
        name="cut",
        title="100 streams of 50 tokens/s, each write cut anywhere",
        streams=100,
        script=Script(100 // part, 50, 1, "cut"),
        spread=1,
        stack=False,
    )
    yield OpenStreams(streams=200, script=Script(16, 2), spread=2, look=2) if quick else OpenStreams()
    yield History(long=100, posts=10, stack=False) if quick else History()
    yield OnePiece(requests=80, stack=False) if quick else OnePiece()
    yield Startup(conversations=200 // part)
    yield Workers(script=Script(75, 30)) if quick else Workers()
