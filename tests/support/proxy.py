"""A small TCP proxy that can cut, delay and split what goes through it."""

import asyncio
import ssl
from contextlib import suppress
from typing import Any, Self

# Longer than the pause between two pieces of a stream, shorter than a reader's patience.
_QUIET_SECONDS = 0.8


class Proxy:
    """Listens on a free loopback port and hands on to a target: `host:port`, or the path of a unix socket."""

    def __init__(self, target: str, *, tls: ssl.SSLContext | None = None) -> None:
        """`tls`: what it speaks to its clients; the target is spoken to without."""
        self._target = target
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._pumps: set[asyncio.Task[Any]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.address = ""
        #: Bytes towards the client after which each connection is cut; None: never.
        self.cut_after: int | None = None
        #: Bytes towards the client in one write; None: as they come.
        self.split: int | None = None
        #: Nothing passes towards the client while it is cleared: requests arrive, replies don't.
        self.flowing = asyncio.Event()
        self.flowing.set()
        #: What comes for the client is held back until it has been quiet for a while, as a proxy does that buffers.
        self.buffering = False
        #: New connections are refused while it is False.
        self.accepting = True

    def cut(self) -> None:
        """Reset all connections that are open."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def __aenter__(self) -> Self:
        """Start listening."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=self._tls)
        host, port = self._server.sockets[0].getsockname()[:2]
        self.address = f"{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop, and cut what is open."""
        assert self._server is not None
        self._server.close()
        self.flowing.set()
        while self._pumps:  # not cancelled: asyncio's own callback complains of that, in this Python
            self.cut()
            await asyncio.wait(self._pumps, timeout=0.1)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if not self.accepting:
            writer.transport.abort()
            return
        self._pumps.add(task)
        self._writers.add(writer)
        try:
            with suppress(OSError):
                if self._target.startswith("/"):
                    there = await asyncio.open_unix_connection(self._target)
                else:
                    host, _, port = self._target.rpartition(":")
                    there = await asyncio.open_connection(host, int(port))
                self._writers.add(there[1])
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._pump(reader, there[1], None, held=False))
                    group.create_task(self._pump(there[0], writer, self.cut_after, held=True))
        except* OSError:
            pass
        finally:
            for end in (writer, *(there[1:] if "there" in locals() else ())):
                self._writers.discard(end)
                with suppress(AttributeError):  # of Python 3.11.2, with TLS, where it is closed already
                    end.transport.abort()
            self._pumps.discard(task)

    async def _rest(self, source: asyncio.StreamReader) -> bytes:
        rest = b""
        with suppress(TimeoutError):
            while more := await asyncio.wait_for(source.read(65536), _QUIET_SECONDS):
                rest += more
        return rest

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, cut_after: int | None, *, held: bool
    ) -> None:
        sent = 0
        while data := await source.read(65536):
            if held:
                await self.flowing.wait()
                if self.buffering:
                    data += await self._rest(source)
            if cut_after is not None and sent + len(data) >= cut_after:
                sink.write(data[: cut_after - sent])
                await sink.drain()
                raise ConnectionResetError
            step = self.split or len(data)
            for at in range(0, len(data), step):
                sink.write(data[at : at + step])
                await sink.drain()
            sent += len(data)
        if sink.can_write_eof():  # not with TLS
            sink.write_eof()
        else:
            sink.close()
