"""The figures as one table, in the form in which the README shows it."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

HEAD = ("", "upstream itself", "byte pipe", "FastAPI stack", "Parley", "Parley / pipe", "goal")

#: Smaller changes from one run to another mean nothing.
NOISE = 0.05
#: What is not compared with a run before: others than Parley, and how far single rounds went.
LEFT_OUT = ("upstream_", "pipe_", "stack_", "herd_", "ratio_", "parley_late", "parley_readers_busy")


class Row(NamedTuple):
    """One figure: of whoever has it, in words; `ratio` of Parley's to the pipe's."""

    what: str
    parley: str
    pipe: str = ""
    stack: str = ""
    upstream: str = ""
    ratio: str = ""
    goal: str = ""

    def cells(self) -> tuple[str, ...]:
        """Return the cells in the table's order."""
        return (self.what, self.upstream, self.pipe, self.stack, self.parley, self.ratio, self.goal)


class Result(NamedTuple):
    """What a scenario found: rows of the table, plain figures by name to be saved and compared, and wrong answers."""

    rows: list[Row]
    figures: dict[str, float]
    wrong: int = 0


class Scenario(Protocol):
    """What is measured: has a short name, and runs some rounds."""

    @property
    def name(self) -> str:
        """Return its name."""

    async def run(self, rounds: int) -> Result:
        """Measure, and return what was found."""


def table(rows: Sequence[Row]) -> str:
    """Return a table in Markdown."""
    lines = [HEAD, ("---",) * len(HEAD), *(row.cells() for row in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def number(value: float) -> str:
    """Return a figure with the digits that mean something."""
    return f"{value:.0f}" if abs(value) >= 20 else f"{value:.1f}" if abs(value) >= 3 else f"{value:.2f}"


def changes(figures: dict[str, dict[str, float]], before: dict[str, dict[str, float]]) -> list[str]:
    """Return a sentence for each figure of Parley's that is another than in a run before, by more than noise."""
    lines = []
    for scenario, many in figures.items():
        for name, value in many.items():
            was = before.get(scenario, {}).get(name)
            if was and not name.startswith(LEFT_OUT) and abs(value / was - 1) > NOISE:
                lines.append(f"{scenario} {name}: {number(value)}, was {number(was)} ({value / was - 1:+.0%})")
    return lines
