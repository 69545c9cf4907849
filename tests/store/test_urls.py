"""The kinds of `REDIS_URL`: redis://, rediss:// and unix://."""

import ssl
from pathlib import Path

import pytest

from app.domain.startup import StartupError
from app.store.connection import Connector
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


@pytest.mark.usefixtures("redis")
@pytest.mark.parametrize(
    "option",
    [
        *(
            "max_connections=100",
            "socket_timeout=5",
            "socket_connect_timeout=5",
            "timeout=20",
            "decode_responses=false",
        ),
        *("retry_on_timeout=true", "encoding=latin-1", "client_name=parley", "health_check_interval=30", "db=0"),
    ],
)
async def test_options_that_other_programs_may_want_do_no_harm(
    start: Start, store_process: StoreProcess, option: str
) -> None:
    client = await start(redis_url=f"{store_process.url}?{option}")
    assert (await ask(client, "Grüß dich"))["message"]["content"] == "Echo: Grüß dich"
    await client.close()


@pytest.mark.parametrize("option", ["db=x", "colour=red", "parser_class=x", "ssl_ca_certs=ca.pem", "retry=5"])
def test_an_option_that_there_is_not_is_said_to_be_none(option: str) -> None:
    with pytest.raises(StartupError, match=r"REDIS_URL.*option"):
        Connector(f"redis://:secret@127.0.0.1/0?{option}")
