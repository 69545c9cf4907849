"""`python -m app check`: would the service start, and could it answer? Each finding is a sentence; no secret is in any."""

import asyncio
import logging
import sys
from contextlib import AsyncExitStack

from app.domain.errors import UpstreamError, UpstreamRefused
from app.domain.measures import Measures
from app.domain.startup import StartupError
from app.main import authenticator_of, upstream_of
from app.settings import Settings
from app.shared import start_store, start_upstream, without_secrets
from app.store.connection import Connector
from app.store.facts import StoreFacts, store_facts
from app.store.journal import Journal
from app.upstream.client import ChatRequest, Upstream

#: How long the model server may take for a few words.
ANSWER_SECONDS = 30.0


class Findings:
    """What was found, printed as it comes."""

    def __init__(self) -> None:
        self.failed = False

    def good(self, sentence: str) -> None:
        """Say what is right."""
        self._say("ok", sentence)

    def doubtful(self, sentence: str) -> None:
        """Say what may do harm, and keeps nobody from starting."""
        self._say("warning", sentence)

    def bad(self, sentence: str) -> None:
        """Say what keeps the service from its work."""
        self.failed = True
        self._say("error", sentence)

    def _say(self, kind: str, sentence: str) -> None:
        sys.stdout.write(f"{kind:<8} {sentence}\n")
        sys.stdout.flush()


async def check(settings: Settings) -> bool:
    """Look at store, upstream and owners, all of them, whatever is wrong with one; return whether all is well."""
    # What the parts say when they start is for a log; what goes wrong at the model server is of use here too.
    logging.getLogger().setLevel(logging.WARNING)
    findings = Findings()
    findings.good("settings: each can be used.")
    for name, look in (("store", _store), ("upstream", _upstream), ("owners", _owners)):
        try:
            await look(settings, findings)
        except StartupError as error:
            findings.bad(f"{name}: {error}")
    return not findings.failed


async def _store(settings: Settings, findings: Findings) -> None:
    async with AsyncExitStack() as stack:
        url = await start_store(settings, stack)
        connector = Connector(url)
        stack.push_async_callback(connector.close)
        facts = await store_facts(connector)
        if facts.is_replica:
            raise StartupError("It is a replica, which takes no writes. Set REDIS_URL to its primary.")
        if settings.durability == "replica" and not facts.replicas:
            raise StartupError("DURABILITY=replica, but the store has no replica: nothing would ever be acknowledged.")
        # What the service itself does when it starts: the scripts are loaded, and durability is asked for.
        journal = Journal(
            connector,
            durability=settings.durability,
            lease_seconds=settings.lease_seconds,
            outage_seconds=settings.redis_outage_seconds,
            measures=Measures(on=False),
        )
        await journal.start()
        await journal.close()
        where = without_secrets(url) if settings.redis_url is not None else f"embedded, in {settings.data_dir}"
        findings.good(f"store: {facts.name} ({where}), DURABILITY={settings.durability} is possible.")
        _doubts(facts, findings)


def _doubts(facts: StoreFacts, findings: Findings) -> None:
    if facts.policy != "noeviction":
        now = "" if facts.max_memory else ", once maxmemory is set"
        findings.doubtful(
            f"store: maxmemory-policy is {facts.policy}: a full store drops conversations{now}. Set noeviction."
        )
    if not facts.append_only:
        findings.doubtful(
            "store: it writes no append-only file, so what it has acknowledged goes with it. Set appendonly yes."
        )


async def _upstream(settings: Settings, findings: Findings) -> None:
    if settings.demo:
        findings.doubtful("upstream: the built-in demo model, which is no AI. Set OPENAI_API_KEY or OPENAI_BASE_URL.")
        return
    async with AsyncExitStack() as stack:
        target = await start_upstream(settings, stack)
        upstream = await stack.enter_async_context(upstream_of(settings, target.base_url))
        where = without_secrets(target.base_url)
        try:
            listed = await upstream.models()
        except UpstreamRefused as error:
            if error.answered in (401, 403):
                raise StartupError(_key_refused(settings, where, error.answered)) from None
            await _probe(upstream, target.models[0], settings, where)
            findings.good(f"upstream: {where} lists no models, and {target.models[0]} answers.")
        except UpstreamError as error:
            raise StartupError(f"{where}: {error.detail}") from None
        else:
            findings.good(f"upstream: {where} answers, and lists {len(listed)} models.")
            for model in target.models:
                if model not in listed:
                    findings.doubtful(f"upstream: it does not list {model}. Is OPENAI_MODEL right?")


async def _probe(upstream: Upstream, model: str, settings: Settings, where: str) -> None:
    """Ask for one word: not every server lists its models."""
    request = ChatRequest(model, [{"role": "user", "content": "Hi"}], {**settings.openai_extra_body, "max_tokens": 1})
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            async for _ in upstream.stream(request):
                pass
    except TimeoutError:
        raise StartupError(f"{where}: {model} did not answer within {ANSWER_SECONDS:g} s.") from None
    except UpstreamRefused as error:
        if error.answered in (401, 403):
            raise StartupError(_key_refused(settings, where, error.answered)) from None
        raise StartupError(f"{where} refuses to be asked for {model}: {error.detail}") from None
    except UpstreamError as error:
        raise StartupError(f"{where}: {error.detail}") from None


def _key_refused(settings: Settings, where: str, status: int) -> str:
    if settings.openai_api_key is None:
        return f"{where} wants a key ({status}). Set OPENAI_API_KEY."
    return f"{where} refuses the key ({status}). Is OPENAI_API_KEY the one for this server?"


async def _owners(settings: Settings, findings: Findings) -> None:
    authenticator = authenticator_of(settings)
    await authenticator.start()
    missing = authenticator.missing()
    if missing is None:
        findings.good(f"owners: AUTH={settings.auth}.")
    elif settings.auth == "token":  # the file is read again while the service runs
        findings.doubtful(f"owners: {missing}")
    else:
        findings.bad(f"owners: {missing}")
