"""The one place that spells Redis keys.

All keys of a conversation share the hash tag `{<32 hex>}`, so that each of its scripts stays in one slot of a Redis Cluster;
but for `admit`, which a cluster does without. The scripts get the prefixes from here and add an answer's number to them.

| key                              | lifetime                                                                             |
| -------------------------------- | ------------------------------------------------------------------------------------ |
| `chat:{t}`, `chat:{t}:messages`  | `CONVERSATION_TTL_SECONDS` after the last activity; 0 = kept                          |
| `chat:{t}:events:<n>`            | the conversation's while the answer runs (it is the only copy); then `EVENT_LOG_TTL_SECONDS` |
| `chat:{t}:lease:<n>`             | `LEASE_SECONDS`, renewed while the runner lives                                       |
| `chat:{t}:reader:<n>`            | `ABANDONED_ANSWER_SECONDS`, set only where that is not 0                              |
| `chat:{t}:idempotency:<key>`     | 24 hours                                                                              |
| `owner:<id>:conversations`       | as `chat:{t}` of the owner's latest                                                   |
| `barrier`                        | some seconds                                                                          |
| `limit:{<owner>}:messages`       | a minute after the last message                                                       |
| `limit:{<address>}:messages`     | the same                                                                              |
| `limit:{<owner>}:answers`        | that of the longest answer that may run                                               |
| `limit:{<owner>}:readers`        | a minute, renewed while the owner reads                                               |
| `limit:{<owner>}:tokens`         | until the end of the day (UTC)                                                        |
| `limit:{<owner>}:spent:<answer>` | `SPENT_SECONDS`: longer than what was posted may be sent again                        |
"""

IDEMPOTENCY_SECONDS = 24 * 3600
SPENT_SECONDS = 3600
#: String: nothing; it is written so that there is a write to wait for.
BARRIER = "barrier"
BARRIER_MS = 5000


def chat(conversation: str) -> str:
    """Hash: owner, title, system, model, metadata, created, updated, next, head, active, runner, stop, version, usage."""
    return f"chat:{{{conversation}}}"


def messages(conversation: str) -> str:
    """Hash: number -> message JSON."""
    return f"chat:{{{conversation}}}:messages"


def events_prefix(conversation: str) -> str:
    """What an answer's number is added to, for its event log."""
    return f"chat:{{{conversation}}}:events:"


def events(conversation: str, number: int) -> str:
    """Stream: the answer's events, ids `<first position>-0`."""
    return f"{events_prefix(conversation)}{number}"


def lease_prefix(conversation: str) -> str:
    """What an answer's number is added to, for its lease."""
    return f"chat:{{{conversation}}}:lease:"


def lease(conversation: str, number: int) -> str:
    """String: the runner, as long as it lives."""
    return f"{lease_prefix(conversation)}{number}"


def reader(conversation: str, number: int) -> str:
    """String: an answer is read in a process that does not write it."""
    return f"chat:{{{conversation}}}:reader:{number}"


def idempotency(conversation: str, key: str) -> str:
    """String: `<number of the answer> <digest of the request>`."""
    return f"chat:{{{conversation}}}:idempotency:{key}"


def owner_conversations(owner: str) -> str:
    """Sorted set: conversation -> last activity in milliseconds."""
    return f"owner:{owner}:conversations"


def limit_messages(who: str) -> str:
    """Sorted set: message -> when it no longer counts, in milliseconds. `who` is an owner's id or an address."""
    return f"limit:{{{who}}}:messages"


def limit_answers(owner: str) -> str:
    """Sorted set: `<conversation>.<runner>` of an answer that runs -> when it has ended at the latest."""
    return f"limit:{{{owner}}}:answers"


def limit_readers(owner: str) -> str:
    """Hash: process -> `<its streams of this owner> <until when that holds>`."""
    return f"limit:{{{owner}}}:readers"


def limit_tokens(owner: str) -> str:
    """String: the tokens of this day's answers."""
    return f"limit:{{{owner}}}:tokens"


def limit_spent(owner: str, answer: str) -> str:
    """String: an answer's tokens are counted."""
    return f"limit:{{{owner}}}:spent:{answer}"
