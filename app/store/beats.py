"""What goes to the store for each answer that is written, besides its words: its lease, and a look for its stop mark."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from redis.exceptions import OutOfMemoryError

from app.store import keys
from app.store.commits import Command
from app.store.connection import pack
from app.store.log_writer import Interrupt, LogWriter
from app.store.scripts import RENEW

#: How often stop marks are read (half of the second within which a stop from another replica is to take effect).
BEAT_SECONDS = 0.4


class Beats:
    """Makes the commands of each beat; every so often the leases are renewed with it."""

    def __init__(self, *, lease_seconds: float, ttl_seconds: float, post: Callable[..., None]) -> None:
        """`ttl_seconds`: so long a conversation stays at least while an answer is written in it; 0: for ever.

        `post` sends a command that nobody waits for.
        """
        self._lease_ms = int(lease_seconds * 1000)
        self._ttl_ms = int(ttl_seconds * 1000)
        #: The pause between two beats, in seconds: no lease lapses between them.
        self.seconds = min(BEAT_SECONDS, lease_seconds / 3)
        self._each = max(1, int(lease_seconds / 3 / self.seconds))
        self._post = post
        self._count = 0

    def commands(self, writers: Iterable[LogWriter]) -> list[Command]:
        """Return what is due."""
        renew = self._count % self._each == 0
        self._count += 1
        commands: list[Command] = []
        for writer in writers:
            if writer.broken is None:
                mark = pack(("HGET", keys.chat(writer.ref.conversation), "stop"))
                commands.append(Command(mark, partial(_stop_mark, writer)))
                if renew:
                    commands.append(Command(self.renewal(writer), partial(self._renewed, writer)))
                    if self._ttl_ms:
                        commands += self._lifetimes(writer)
        return commands

    def renewal(self, writer: LogWriter) -> bytes:
        """Return the command, packed, that renews an answer's lease, or makes a lapsed one anew."""
        return pack(("SET", keys.lease(*writer.ref), writer.runner, "PX", self._lease_ms))

    def _renewed(self, writer: LogWriter, reply: Any) -> None:
        # Any other failure shows at the next commit.
        if isinstance(reply, OutOfMemoryError):
            name = keys.lease(*writer.ref)
            self._post("EVALSHA", RENEW.sha, 1, name, writer.runner, self._lease_ms)

    def _lifetimes(self, writer: LogWriter) -> list[Command]:
        conversation = writer.ref.conversation
        names = keys.chat(conversation), keys.messages(conversation), writer.key
        return [Command(pack(("PEXPIRE", name, self._ttl_ms)), _ignore) for name in names]


def _stop_mark(writer: LogWriter, reply: Any) -> None:
    if reply == str(writer.ref.number):
        writer.interrupt(Interrupt.STOP)


def _ignore(_: object) -> None:
    """Whether it was there shows elsewhere."""
