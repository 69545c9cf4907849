"""The kinds of `REDIS_URL`: redis://, rediss:// and unix://."""

import ssl
from pathlib import Path

import pytest

from tests.conftest import Start
from tests.support.browser import ask
from tests.support.proxy import Proxy
from tests.support.store import StoreProcess

#: A certificate for 127.0.0.1 that nothing but these tests trusts.
TLS = Path(__file__).parents[1] / "support" / "tls"


@pytest.mark.usefixtures("redis")
async def test_a_store_behind_tcp(start: Start, store_process: StoreProcess) -> None:
    async with Proxy(str(store_process.socket)) as proxy:
        client = await start(redis_url=f"redis://{proxy.address}/0")
        assert (await ask(client, "Hi"))["message"]["content"] == "Echo: Hi"
        await client.close()


@pytest.mark.usefixtures("redis")
async def test_a_store_behind_tls(start: Start, store_process: StoreProcess) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(TLS / "cert.pem", TLS / "key.pem")
    async with Proxy(str(store_process.socket), tls=context) as proxy:
        client = await start(redis_url=f"rediss://{proxy.address}/0?ssl_ca_certs={TLS / 'cert.pem'}")
        assert (await ask(client, "Hi"))["message"]["content"] == "Echo: Hi"
        await client.close()
