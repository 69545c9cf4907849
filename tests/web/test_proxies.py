"""Whose word counts on where a request comes from: shown by whose messages are counted together."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, UnixConnector, web

from app.main import create_app
from app.settings import Settings
from tests.conftest import Start

TRUSTED = "127.0.0.1, 10.9.0.0/16, 2001:db8:9::/48"


async def counted(redis: Any) -> set[str]:
    """Return the addresses whose messages are counted."""
    names = {key.partition("{")[2].partition("}")[0] for key in await redis.keys("limit:*:messages")}
    return {name for name in names if len(name) != 40}


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        ([], "127.0.0.1"),
        (["192.0.2.1"], "192.0.2.1"),
        (["192.0.2.1:4711"], "192.0.2.1"),
        (["198.51.100.9, 192.0.2.1"], "192.0.2.1"),  # the left one is what the client has made up
        (["198.51.100.9", "192.0.2.1"], "192.0.2.1"),
        (["192.0.2.1, 10.9.1.2"], "192.0.2.1"),  # two trusted proxies
        (["198.51.100.9, 192.0.2.1, 10.9.1.2, 10.9.1.3"], "192.0.2.1"),
        (["10.9.1.2"], "10.9.1.2"),
        (["nonsense"], "127.0.0.1"),
        (["192.0.2.1, nonsense"], "127.0.0.1"),
        (["192.0.2.1, unix"], "127.0.0.1"),
        ([""], "127.0.0.1"),
        (["::ffff:192.0.2.1"], "192.0.2.1"),
        (["2001:db8:1:2:3:4:5:6"], "2001:db8:1:2::/64"),
        (["[2001:db8:1:2::9]:4711, 2001:db8:9::1"], "2001:db8:1:2::/64"),
    ],
)
async def test_behind_trusted_proxies_the_client_is_who_the_outermost_one_has_seen(
    start: Start, redis: Any, forwarded: list[str], address: str
) -> None:
    client = await start(trusted_proxies=TRUSTED)
    headers = [("X-Forwarded-For", line) for line in forwarded]
    async with client.post("/messages", json={"content": "Hi"}, headers=headers) as response:
        await response.read()
    assert await counted(redis) == {address}


async def test_nobody_else_is_believed(start: Start, redis: Any) -> None:
    for trusted in ("", "192.0.2.1, 10.0.0.0/8, unix"):
        client = await start(trusted_proxies=trusted)
        async with client.post(
            "/messages", json={"content": "Hi"}, headers={"X-Forwarded-For": "198.51.100.9"}
        ) as response:
            await response.read()
    assert await counted(redis) == {"127.0.0.1"}


async def test_owners_who_say_who_they_are_have_no_limit_of_their_address(start: Start, redis: Any) -> None:
    client = await start(auth="jwt", jwt_key="s" * 32, jwt_issuer="i", jwt_audience="a")
    async with client.post("/messages", json={"content": "Hi"}) as response:
        assert response.status == 401
    assert await counted(redis) == set()


@pytest.mark.parametrize(("trusted", "address"), [("unix", "192.0.2.1"), ("127.0.0.1", "unix")])
async def test_who_comes_by_a_unix_socket_is_trusted_only_by_name(
    settings: dict[str, Any], redis: Any, trusted: str, address: str
) -> None:
    with tempfile.TemporaryDirectory(prefix="parley-") as folder:
        path = str(Path(folder) / "socket")
        runner = web.AppRunner(create_app(Settings(**settings | {"trusted_proxies": trusted})))
        await runner.setup()
        await web.UnixSite(runner, path).start()
        try:
            async with (
                ClientSession(connector=UnixConnector(path)) as session,
                session.post(
                    "http://chat.example/messages",
                    json={"content": "Hi"},
                    headers={"X-Forwarded-For": "192.0.2.1", "Origin": "https://chat.example"},
                ) as response,
            ):
                assert response.status == 200
                await response.read()
        finally:
            await runner.cleanup()
    assert await counted(redis) == {address}
