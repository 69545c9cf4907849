"""The owner's list of conversations: written with them, or behind them in a cluster, and mended on reading."""

from app.store import keys
from app.store.journal import Journal


class OwnerLists:
    """Posts what is to be listed: nobody waits for it."""

    def __init__(self, journal: Journal, *, ttl_seconds: float) -> None:
        """`ttl_seconds`: how long a list stays after its owner's last activity, as the conversations do; 0: for ever."""
        self._journal = journal
        self._ttl_ms = int(ttl_seconds * 1000)

    def add(self, owner: str, conversation: str, activity: int) -> None:
        """List a new conversation; one that is listed stays where it is."""
        self._journal.post("ZADD", keys.owner_conversations(owner), "NX", activity, conversation)
        self.keep(owner)

    def put(self, owner: str, conversation: str, activity: int, *options: str) -> None:
        """List a conversation at the time of its last activity, in milliseconds. `options`: of ZADD."""
        self._journal.post("ZADD", keys.owner_conversations(owner), *options, "GT", activity, conversation)
        self.keep(owner)

    def keep(self, owner: str) -> None:
        """Let an owner's list stay as long as a conversation that was changed now."""
        if self._ttl_ms:
            self._journal.post("PEXPIRE", keys.owner_conversations(owner), self._ttl_ms)
