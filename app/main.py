"""The one place where objects are built: settings in, application out."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial

from aiohttp import web

from app.answers.asking import Asking
from app.answers.conversations import Conversations
from app.answers.readers import Abandonment
from app.answers.recovery import Recovery
from app.answers.service import Answers
from app.domain.context import window_bytes
from app.domain.measures import Measures
from app.domain.spans import Spans
from app.settings import Settings
from app.shared import Shared
from app.shared import shared as start_shared
from app.store.admission import Admission
from app.store.answers import AnswerStore
from app.store.barrier import Barrier
from app.store.connection import Connector
from app.store.conversations import ConversationStore
from app.store.follower import Follower
from app.store.journal import Journal
from app.store.limits import Limits
from app.store.owner_list import OwnerLists
from app.tracing import spans_of_environment
from app.upstream.client import Upstream
from app.upstream.retries import Retrying
from app.web.access import Access
from app.web.auth.anonymous import Anonymous
from app.web.auth.interface import Authenticator
from app.web.auth.tokens import Tokens
from app.web.bodies import BODY_TIMEOUT, inviting
from app.web.conversations import ConversationRoutes
from app.web.cross_site import CrossSite
from app.web.docs import DocsRoutes
from app.web.messages import MessageRoutes
from app.web.metrics import MetricsRoutes, watch_loop
from app.web.models import ModelRoutes
from app.web.owners import Owners
from app.web.page import PageRoutes
from app.web.problems import name_response, problems
from app.web.proxies import Proxies
from app.web.service import ServiceRoutes
from app.web.streams import Streams

log = logging.getLogger("parley")

ANSWERS = web.AppKey("ANSWERS", Answers)
STREAMS = web.AppKey("STREAMS", Streams)


def create_app(
    settings: Settings, *, shared: Shared | None = None, measures: Measures | None = None
) -> web.Application:
    """Return the service. Its parts are built when it starts, and taken down in reverse when it is cleaned up.

    `shared` and `measures` where it is one of several processes, else it has its own.
    """
    proxies = Proxies(settings.trusted_proxies)
    cross_site = CrossSite(settings.cors_origins, proxies)
    authenticator = authenticator_of(settings)
    owners = Owners(authenticator, proxies, cross_site=bool(settings.cors_origins))
    measures = measures or Measures(on=settings.metrics)
    spans = spans_of_environment()
    access = Access(measures, spans)
    app = web.Application(
        middlewares=[access.middleware, problems, cross_site.middleware, owners.middleware],
        client_max_size=settings.max_message_bytes,
    )
    app[BODY_TIMEOUT] = settings.body_timeout_seconds
    app.on_response_prepare.extend((access.prepared, name_response, owners.introduce, cross_site.allow))
    app.cleanup_ctx.append(
        partial(
            _parts,
            settings,
            authenticator=authenticator,
            owners=owners,
            proxies=proxies,
            shared=shared,
            measures=measures,
            access=access,
            spans=spans,
        )
    )
    return app


def metrics_app(measures: Measures) -> web.Application:
    """Return what is served at `METRICS_PORT`."""
    app = web.Application()
    app.add_routes(MetricsRoutes(measures, None).routes())
    return app


async def drain(app: web.Application, grace_seconds: float) -> None:
    """Begin no more answers, let those that run finish or end them, then end all streams."""
    await app[ANSWERS].drain(grace_seconds)
    app[STREAMS].close()


async def _parts(
    settings: Settings,
    app: web.Application,
    *,
    authenticator: Authenticator,
    owners: Owners,
    proxies: Proxies,
    shared: Shared | None,
    measures: Measures,
    access: Access,
    spans: Spans,
) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        stack.push_async_callback(asyncio.to_thread, spans.close)
        await authenticator.start()
        if shared is None:
            shared = await stack.enter_async_context(start_shared(settings))
        connector = Connector(shared.store_url)
        stack.push_async_callback(connector.close)
        journal = Journal(
            connector,
            durability=settings.durability,
            lease_seconds=settings.lease_seconds,
            outage_seconds=settings.redis_outage_seconds,
            measures=measures,
            conversation_ttl_seconds=settings.conversation_ttl_seconds,
        )
        barrier = Barrier(connector, settings.durability)
        await journal.start()
        stack.push_async_callback(journal.close)
        limits = Limits(
            connector,
            journal,
            process=secrets.token_hex(8),
            messages_per_minute=settings.limit_messages_per_minute,
            address_messages_per_minute=settings.limit_address_messages_per_minute,
            tokens_per_day=settings.limit_tokens_per_day,
            address_tokens_per_day=settings.limit_address_tokens_per_day,
            active_answers=settings.limit_active_answers,
            readers=settings.limit_readers,
            answer_seconds=settings.answer_timeout_seconds,
        )
        await limits.start()
        stack.push_async_callback(limits.close)
        owner_lists = OwnerLists(journal, ttl_seconds=settings.conversation_ttl_seconds)
        store = AnswerStore(
            connector,
            journal,
            barrier,
            limits,
            owner_lists,
            conversation_ttl_seconds=settings.conversation_ttl_seconds,
            event_log_ttl_seconds=settings.event_log_ttl_seconds,
            measures=measures,
            spans=spans,
        )
        conversation_store = ConversationStore(
            connector, barrier, owner_lists, conversation_ttl_seconds=settings.conversation_ttl_seconds
        )
        recovery = Recovery(store, lease_seconds=settings.lease_seconds)
        stack.push_async_callback(recovery.close)
        upstream = await stack.enter_async_context(upstream_of(settings, shared.upstream.base_url))
        asking = Asking(
            Retrying(upstream, settings.upstream_retry_seconds, measures=measures, spans=spans),
            models=shared.upstream.models,
            context_tokens=settings.context_tokens,
            defaults=settings.openai_extra_body,
        )
        admission = Admission(
            journal,
            limits,
            owner_lists,
            default_model=asking.models[0],
            window_bytes=window_bytes(asking.largest_window),
            lease_seconds=settings.lease_seconds,
            conversation_ttl_seconds=settings.conversation_ttl_seconds,
            spans=spans,
        )
        answers = Answers(
            admission=admission,
            store=store,
            conversations=conversation_store,
            journal=journal,
            follower=Follower(connector, barrier, recovery.suspect, announce_seconds=settings.abandoned_answer_seconds),
            recovery=recovery,
            asking=asking,
            max_buffered_bytes=settings.max_buffered_bytes,
            abandonment=Abandonment(store, seconds=settings.abandoned_answer_seconds),
            limits=limits,
            max_active=settings.max_active_answers,
            measures=measures,
        )
        stack.push_async_callback(answers.drain, 0)
        conversations = Conversations(conversation_store, answers)
        streams = Streams(
            heartbeat_seconds=settings.heartbeat_seconds,
            send_timeout_seconds=settings.send_timeout_seconds,
            measures=measures,
        )
        streams.start()
        stack.callback(streams.stop)
        app[ANSWERS], app[STREAMS] = answers, streams
        for routes in (
            MessageRoutes(answers, streams, proxies),
            ConversationRoutes(conversations),
            ModelRoutes(answers, shared.upstream.owner),
        ):
            app.router.add_routes(inviting(routes.routes()))
        for public in (ServiceRoutes(answers, conversations), DocsRoutes(), PageRoutes()):
            owners.let_all_in(app.router.add_routes(inviting(public.routes())))
        if settings.metrics_token is not None:
            metrics = MetricsRoutes(measures, settings.metrics_token.get_secret_value())
            owners.let_all_in(app.router.add_routes(metrics.routes()))
        access.watch(app.router.routes())
        if measures.on:
            watch = asyncio.create_task(watch_loop(measures))
            stack.callback(watch.cancel)
        yield


def upstream_of(settings: Settings, base_url: str) -> Upstream:
    """Return the client of the model server."""
    return Upstream(
        base_url=base_url,
        api_key=settings.openai_api_key.get_secret_value() if settings.openai_api_key else None,
        extra_headers=settings.openai_extra_headers,
        connect_timeout=settings.connect_timeout_seconds,
        first_token_timeout=settings.first_token_timeout_seconds,
        token_timeout=settings.token_timeout_seconds,
        answer_timeout=settings.answer_timeout_seconds,
    )


def authenticator_of(settings: Settings) -> Authenticator:
    """Return what knows whose a request is, as `AUTH` says."""
    match settings.auth:
        case "token":
            assert settings.tokens_file is not None  # the settings were checked
            return Tokens(settings.tokens_file)
        case "jwt":
            from app.web.auth.jwks import Jwks  # noqa: PLC0415 - cryptography, a tenth of the start
            from app.web.auth.jwts import FixedKey, Jwts  # noqa: PLC0415

            assert settings.jwt_issuer is not None
            algorithms = settings.jwt_algorithms
            keys: FixedKey | Jwks
            if settings.jwt_key is not None:
                keys = FixedKey(settings.jwt_key.get_secret_value(), algorithms)
            else:
                assert settings.jwt_jwks_url is not None
                keys = Jwks(settings.jwt_jwks_url, algorithms)
            return Jwts(keys, issuer=settings.jwt_issuer, audience=settings.jwt_audience)
    return Anonymous()
