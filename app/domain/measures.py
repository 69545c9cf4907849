"""What the service counts about itself: numbers in a row of memory, filled without a lock, summed by whoever is asked.

Each process writes one row of a `Board`, which all processes of a service may share: so one scrape has the sums, exact
and at once, without a message between processes, and a process that takes a dead one's row goes on counting where that
one stood. prometheus-client's own multiprocess mode costs a lock and some microseconds for each count; what is counted
for each token may cost a third of one.
"""

import mmap
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

from app.domain.errors import UpstreamError, all_errors

STATUSES = ("completed", "stopped", "interrupted", "failed")

#: Upper bounds of the histograms' buckets.
FIRST_TOKEN_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
TOKEN_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
COMMIT_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
COMMIT_COMMANDS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)
LAG_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)

#: Numbers of a process; what is counted takes some three hundred.
ROW_CELLS = 2048
ROW_BYTES = ROW_CELLS * 8

Kind = Literal["counter", "gauge", "histogram"]


class Board:
    """The numbers of all processes of a service, a row each."""

    def __init__(self, rows: int = 1, file: int = -1) -> None:
        """`file` is the descriptor of what the processes share, `rows` x `ROW_BYTES` long; -1: memory of this process."""
        self._cells = memoryview(mmap.mmap(file, rows * ROW_BYTES)).cast("d")
        self._rows = rows

    def row(self, index: int) -> "memoryview[float]":
        """Return a row, to be written by one process only."""
        return self._cells[index * ROW_CELLS : (index + 1) * ROW_CELLS]

    def sums(self) -> list[float]:
        """Return the sums over all processes."""
        return [sum(column) for column in zip(*(self.row(index) for index in range(self._rows)), strict=True)]


class Family(NamedTuple):
    """A metric: how it is called, and in which cells its numbers are."""

    name: str
    help: str
    kind: Kind
    labels: tuple[str, ...]
    #: The values of the labels, one tuple for each number (a counter, a gauge).
    series: tuple[tuple[str, ...], ...]
    #: The buckets' upper bounds (a histogram): a number for each, one for what is above all, and one for the sum.
    bounds: tuple[float, ...]
    first: int


class Measures:
    """What one process counts. Counters and histograms only rise; a gauge is what holds now."""

    def __init__(self, board: Board | None = None, row: int | None = 0, *, on: bool = True) -> None:
        """`row` None: to read only. `on` False: nobody will ask, so what costs something for each token or commit is left out."""
        self.board = board or Board()
        self.on = on
        self.families: list[Family] = []
        self._cells = Board().row(0) if row is None else self.board.row(row)
        self._used = 0
        self._answers = self._labelled(
            "parley_answers", "Answers that ended, by status", "counter", ("status",), [(name,) for name in STATUSES]
        )
        self._running = self._one("parley_answers_running", "Answers that are being written", "gauge")
        self._readers = self._one("parley_readers", "Clients that read an answer's events", "gauge")
        self._first = self._histogram(
            "parley_first_token_seconds", "From the stored message to the answer's first token", FIRST_TOKEN_SECONDS
        )
        self._gaps: list[float] = []
        #: Say that a token of an answer came so many seconds after the one before it; the next commit counts it.
        self.next_token: Callable[[float], None] = self._gaps.append if on else _nothing
        self._token = self._histogram("parley_token_seconds", "Between two tokens of an answer", TOKEN_SECONDS)
        codes = [(kind.code,) for kind in all_errors() if issubclass(kind, UpstreamError)]
        self._upstream = self._labelled(
            "parley_upstream_errors", "Requests to the model server that failed, by code", "counter", ("code",), codes
        )
        self._retries = self._one(
            "parley_upstream_retries", "Requests to the model server that were repeated", "counter"
        )
        self._commit_commands = self._histogram(
            "parley_commit_commands", "Commands to the store in one commit", COMMIT_COMMANDS
        )
        self._commit_seconds = self._histogram(
            "parley_commit_seconds", "From sending a commit to its acknowledgement", COMMIT_SECONDS
        )
        self._store_errors = self._one("parley_store_errors", "Connections to the store that failed", "counter")
        self._outages = self._one("parley_store_outages", "How often the store went away", "counter")
        self._away = self._one("parley_store_away", "Processes whose store is away", "gauge")
        self._lag = self._histogram(
            "parley_loop_lag_seconds", "How late the event loop was, looked at twice a second", LAG_SECONDS
        )
        self._problems = self._labelled(
            "parley_problems", "Requests answered with an error, by code", "counter", ("code",),
            sorted({(kind.code,) for kind in all_errors()}),
        )  # fmt: skip
        self._requests: dict[tuple[str, str], int] = {}
        #: The routes that `watch_routes` was told.
        self.routes: list[tuple[str, str]] = []
        for gauge in (self._running, self._readers, self._away):
            self._cells[gauge] = 0  # those of a process that died with them

    # --- what is counted ----------------------------------------------------------------------------------------------

    def answer_begun(self) -> None:
        """Say that a runner has begun to write an answer."""
        self._cells[self._running] += 1

    def answer_left(self) -> None:
        """Say that a runner writes its answer no more, whoever ended it."""
        self._cells[self._running] -= 1

    def answer_ended(self, status: str) -> None:
        """Say that this process has written the end of an answer, its own or that of a dead runner."""
        self._cells[self._answers[(status,)]] += 1

    def reader_came(self) -> None:
        """Say that a client has begun to read events."""
        self._cells[self._readers] += 1

    def reader_went(self) -> None:
        """Say that it reads no more."""
        self._cells[self._readers] -= 1

    def first_tokens(self, tokens: int, seconds: float) -> None:
        """Say that an answer's first tokens came, so long after it began."""
        self._see(self._first, FIRST_TOKEN_SECONDS, seconds)
        self._cells[self._token] += tokens - 1.0

    def next_tokens(self, tokens: int, seconds: float) -> None:
        """Say that tokens of an answer came together, the first of them so long after the one before it."""
        self.next_token(seconds)
        self._cells[self._token] += tokens - 1.0

    def upstream_failed(self, code: str) -> None:
        """Say that a request to the model server failed."""
        self._cells[self._upstream[(code,)]] += 1

    def upstream_retried(self) -> None:
        """Say that the model server is asked again."""
        self._cells[self._retries] += 1

    def committed(self, commands: int, seconds: float) -> None:
        """Say that the store has acknowledged a commit."""
        if self.on:
            self._see_gaps()
            self._see(self._commit_commands, COMMIT_COMMANDS, commands)
            self._see(self._commit_seconds, COMMIT_SECONDS, seconds)

    def store_failed(self) -> None:
        """Say that a connection to the store failed, the first one of an outage or a further one."""
        self._cells[self._store_errors] += 1

    def store_went(self) -> None:
        """Say that the store went away."""
        self._cells[self._outages] += 1
        self._cells[self._away] = 1

    def store_came(self) -> None:
        """Say that it is back."""
        self._cells[self._away] = 0

    def lagged(self, seconds: float) -> None:
        """Say how late the event loop was."""
        self._see(self._lag, LAG_SECONDS, seconds)

    def problem(self, code: str) -> None:
        """Say that a request was answered with an error."""
        self._cells[self._problems[(code,)]] += 1

    def watch_routes(self, routes: Iterable[tuple[str, str]]) -> None:
        """Name all (method, path template) once, in the same order in each process."""
        classes = ("2xx", "3xx", "4xx", "5xx")
        self.routes = list(routes)
        known = [*self.routes, ("other", "none")]
        cells = self._labelled(
            "parley_requests", "Requests that were answered, by route and class of status", "counter",
            ("method", "route", "status"), [(*route, status) for route in known for status in classes],
        )  # fmt: skip
        self._requests = {route: cells[(*route, classes[0])] for route in known}

    def request(self, method: str, route: str, status: int) -> None:
        """Say that a request was answered; one that has no route counts as (`other`, `none`)."""
        first = self._requests.get((method, route)) or self._requests.get(("other", "none"))
        if first is not None and 200 <= status < 600:
            self._cells[first + status // 100 - 2] += 1

    def _see(self, first: int, bounds: Sequence[float], value: float) -> None:
        """Count a value in the histogram that begins at the cell `first`."""
        self._cells[first + bisect_left(bounds, value)] += 1.0
        self._cells[first + len(bounds) + 1] += value

    def _see_gaps(self) -> None:
        """Count what `next_token` was told: many at a time, which takes a third less for each."""
        cells, first = self._cells, self._token
        for seconds in self._gaps:
            cells[first + bisect_left(TOKEN_SECONDS, seconds)] += 1.0
        cells[first + len(TOKEN_SECONDS) + 1] += sum(self._gaps)
        self._gaps.clear()

    # --- where the numbers are ----------------------------------------------------------------------------------------

    def _add(self, family: Family, cells: int) -> int:
        self.families.append(family)
        self._used += cells
        assert self._used <= ROW_CELLS
        return family.first

    def _one(self, name: str, text: str, kind: Kind) -> int:
        return self._add(Family(name, text, kind, (), ((),), (), self._used), 1)

    def _labelled(
        self, name: str, text: str, kind: Kind, labels: tuple[str, ...], series: Sequence[tuple[str, ...]]
    ) -> dict[tuple[str, ...], int]:
        first = self._add(Family(name, text, kind, labels, tuple(series), (), self._used), len(series))
        return {values: first + index for index, values in enumerate(series)}

    def _histogram(self, name: str, text: str, bounds: tuple[float, ...]) -> int:
        assert all(low < high for low, high in pairwise(bounds))
        return self._add(Family(name, text, "histogram", (), (), bounds, self._used), len(bounds) + 2)


def _nothing(_: float) -> None:
    """Count nothing."""


def values(family: Family, sums: Sequence[float]) -> Iterator[tuple[tuple[str, ...], float]]:
    """Yield the labels' values and the number of each series of a counter or a gauge."""
    for index, labels in enumerate(family.series):
        yield labels, sums[family.first + index]


def buckets(family: Family, sums: Sequence[float]) -> tuple[list[tuple[str, float]], float]:
    """Return a histogram's buckets, (upper bound, how many are not above it), and the sum of what it has seen."""
    found: list[tuple[str, float]] = []
    count = 0.0
    for index, bound in enumerate((*family.bounds, None)):
        count += sums[family.first + index]
        found.append(("+Inf" if bound is None else str(bound), count))
    return found, sums[family.first + len(family.bounds) + 1]
