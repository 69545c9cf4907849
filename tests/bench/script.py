"""What the model server of a measurement says, told by the model's name: the only thing that passes through every contestant."""

from typing import NamedTuple, Self


class Script(NamedTuple):
    """An answer of `tokens` tokens at `rate` a second (0: as fast as possible), `burst` of them in each write.

    `how` is `plain`; `cut`: every write is cut in two, at another byte each time, between the HTTP chunk's own bytes too;
    or `wrong`: one token is another than it should be, so that a check can be seen to fail.
    """

    tokens: int
    rate: float = 0
    burst: int = 1
    how: str = "plain"

    @property
    def model(self) -> str:
        """Return the model's name."""
        return f"bench-{self.tokens}-{self.rate:g}-{self.burst}-{self.how}"

    @property
    def text(self) -> str:
        """Return the whole answer, as it should arrive."""
        return "".join(map(word, range(self.tokens)))

    @classmethod
    def of(cls, model: str) -> Self:
        """Return what a model's name says. Raises ValueError for another one."""
        _, tokens, rate, burst, how = model.split("-")
        return cls(int(tokens), float(rate), int(burst), how)


def word(number: int) -> str:
    """Return a token: each one is told from the others, and all have a character of two bytes."""
    return f"w{number}é "
