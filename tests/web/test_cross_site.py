"""What a page of another origin may do: nothing, unless it is listed; and what every response says to browsers."""

from http.cookies import SimpleCookie
from typing import Any

import pytest

from tests.conftest import Client, Start
from tests.support.browser import ask
from tests.support.scripted_upstream import ScriptedUpstream
from tests.support.sse import read_all

LISTED = "https://app.example"
FOREIGN = (
    "https://evil.example",
    "null",
    "https://app.example.evil.example",
    "http://app.example",
    "",
    "https://app.example:8443",
)
EXPOSED = {"ETag", "Location", "RateLimit", "RateLimit-Policy", "Retry-After", "X-Request-ID", "x-should-retry"}


@pytest.fixture
async def client(start: Start) -> Client:
    return await start(cors_origins=f"{LISTED}, http://localhost:5173")


def own(client: Client) -> str:
    """Return the service's own origin."""
    return str(client.make_url("/").origin())


@pytest.mark.parametrize("origin", FOREIGN)
async def test_what_changes_something_is_refused_to_a_foreign_origin_and_nothing_is_stored(
    client: Client, redis: Any, upstream: ScriptedUpstream, origin: str
) -> None:
    path = f"/conversations/conv_{'0' * 32}"
    message = f"/messages/msg_{'0' * 32}_2"
    for method, where in [
        *(("POST", "/messages"), ("POST", "/conversations"), ("PATCH", path), ("DELETE", path)),
        *(("POST", f"{message}/stop"), ("POST", f"{message}/regenerate")),
    ]:
        async with client.request(method, where, json={"content": "Hi"}, headers={"Origin": origin}) as response:
            assert response.status == 403
            assert (await response.json())["code"] == "forbidden_origin"
            assert "Access-Control-Allow-Origin" not in response.headers
            assert "Set-Cookie" not in response.headers
    assert await redis.keys("*") == []
    assert upstream.requests == []


async def test_a_foreign_origin_may_read_nothing_that_it_could_not_without_a_browser(client: Client) -> None:
    await ask(client, "Hi")
    async with client.get("/conversations", headers={"Origin": "https://evil.example"}) as response:
        assert response.status == 200  # it is the browser that keeps it from the page
        assert "Access-Control-Allow-Origin" not in response.headers
        assert response.headers["Vary"] == "Origin"


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_where_no_origin_is_told_the_browsers_word_on_the_site_counts(client: Client, site: str) -> None:
    for told, expected in ((site, 403), ("same-origin", 201), ("none", 201)):
        async with client.post("/conversations", json={}, headers={"Sec-Fetch-Site": told}) as response:
            assert response.status == expected


async def test_the_own_origin_is_not_foreign_with_and_without_other_origins(start: Start) -> None:
    for settings in ({}, {"cors_origins": LISTED}):
        client = await start(**settings)
        for headers in ({"Origin": own(client)}, {"Origin": own(client), "Sec-Fetch-Site": "same-origin"}, {}):
            async with client.post("/conversations", json={}, headers=headers) as response:
                assert response.status == 201
                assert "Access-Control-Allow-Origin" not in response.headers
    client = await start()
    async with client.post("/conversations", json={}, headers={"Origin": LISTED}) as response:
        assert response.status == 403
        assert "Vary" not in response.headers


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://chat.example", "Host": "chat.example"}, 201),
        ({"Origin": "https://chat.example", "Host": "chat.example:443"}, 201),
        ({"Origin": "https://chat.example:8443", "Host": "chat.example"}, 403),
        ({"Origin": "https://chat.example", "X-Forwarded-Host": "chat.example"}, 403),
    ],
)
async def test_without_a_trusted_proxy_the_own_origin_is_the_host_that_was_asked(
    start: Start, headers: dict[str, str], status: int
) -> None:
    client = await start()
    async with client.post("/conversations", json={}, headers=headers) as response:
        assert response.status == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://chat.example", "X-Forwarded-Host": "chat.example", "X-Forwarded-Proto": "https"}, 201),
        ({"Origin": "http://chat.example", "X-Forwarded-Host": "chat.example", "X-Forwarded-Proto": "https"}, 403),
        ({"Origin": "http://chat.example", "X-Forwarded-Host": "chat.example", "X-Forwarded-Proto": "http"}, 201),
        ({"Origin": "https://evil.example", "X-Forwarded-Host": "evil.example, chat.example"}, 403),
        ({"Origin": "https://evil.example", "Host": "evil.example", "X-Forwarded-Host": "chat.example"}, 403),
    ],
)
async def test_a_trusted_proxy_tells_what_the_own_origin_is(start: Start, headers: dict[str, str], status: int) -> None:
    client = await start(trusted_proxies="127.0.0.1")
    async with client.post("/conversations", json={}, headers=headers) as response:
        assert response.status == status


async def test_a_listed_origins_preflight_is_answered_and_no_others(client: Client, redis: Any) -> None:
    asks = {"Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": "content-type"}
    async with client.options("/conversations/x", headers={"Origin": LISTED} | asks) as response:
        assert response.status == 204
        assert response.headers["Access-Control-Allow-Origin"] == LISTED
        assert response.headers["Access-Control-Allow-Credentials"] == "true"
        assert set(response.headers["Access-Control-Allow-Methods"].split(", ")) == {"GET", "POST", "PATCH", "DELETE"}
        allowed = set(response.headers["Access-Control-Allow-Headers"].split(", "))
        wanted = {"Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", "X-Request-ID"}
        assert wanted <= allowed
        assert response.headers["Vary"] == "Origin"
    for origin in FOREIGN:
        async with client.options("/conversations/x", headers={"Origin": origin} | asks) as response:
            assert response.status == 405
            assert not [name for name in response.headers if name.startswith("Access-Control-")]
    assert await redis.keys("*") == []


async def test_a_preflight_needs_no_token(start: Start) -> None:
    client = await start(cors_origins=LISTED, auth="jwt", jwt_key="s" * 32, jwt_issuer="i", jwt_audience="a")
    asks = {"Origin": LISTED, "Access-Control-Request-Method": "POST"}
    async with client.options("/messages", headers=asks) as response:
        assert response.status == 204
    async with client.post("/messages", json={"content": "Hi"}, headers={"Origin": LISTED}) as response:
        assert (response.status, response.headers["Access-Control-Allow-Origin"]) == (401, LISTED)


async def test_a_listed_origin_reads_answers_streams_and_errors(client: Client) -> None:
    headers = {"Origin": LISTED}
    async with client.post("/messages", json={"content": "Hi"}, headers=headers) as response:
        seen = [response]
        frames = await read_all(response)
    answer = frames[0].json["message"]
    for path, status in [
        *((f"/messages/{answer}", 200), (f"/messages/{answer}/events", 200), ("/nowhere", 404)),
        *(("/conversations/x", 404), ("/models", 200), ("/", 200), ("/health/live", 200)),
    ]:
        async with client.get(path, headers=headers) as response:
            assert response.status == status
            seen.append(response)
    async with client.post("/messages", json={}, headers=headers) as response:
        assert response.status == 422
        seen.append(response)
    for response in seen:
        assert response.headers.getall("Access-Control-Allow-Origin") == [LISTED]
        assert response.headers["Access-Control-Allow-Credentials"] == "true"
        assert set(response.headers["Access-Control-Expose-Headers"].split(", ")) == EXPOSED
        assert "Origin" in response.headers["Vary"].split(", ")


@pytest.mark.parametrize(
    ("origins", "proto", "expected"),
    [
        (LISTED, "https", ("None", True)),
        (LISTED, "http", ("Lax", False)),
        ("", "https", ("Lax", True)),
        ("", "http", ("Lax", False)),
    ],
)
async def test_the_cookie_goes_across_sites_only_where_another_origin_is_listed_and_https_is_spoken(
    start: Start, origins: str, proto: str, expected: tuple[str, bool]
) -> None:
    client = await start(cors_origins=origins, trusted_proxies="127.0.0.1")
    async with client.get("/conversations", headers={"X-Forwarded-Proto": proto}) as response:
        (header,) = response.headers.getall("Set-Cookie")
    cookie = SimpleCookie(header)["parley_owner"]
    assert (cookie["samesite"], bool(cookie["secure"])) == expected
    assert cookie["httponly"]


async def test_every_response_says_what_browsers_must_not_do_with_it(client: Client) -> None:
    answer = (await ask(client, "Hi"))["message"]["id"]
    for path in ("/health/live", "/openapi.json", "/models", f"/messages/{answer}/events", "/nowhere", "/", "/docs"):
        async with client.get(path) as response:
            assert response.headers.getall("X-Content-Type-Options") == ["nosniff"], path
    for path in ("/", "/docs"):
        async with client.get(path) as response:
            policy = response.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert response.headers["Referrer-Policy"] == "no-referrer"
