"""A defect while an answer is begun is heard of, whether its client waits or not."""

import asyncio
from typing import Any

import pytest

from app.domain.requests import NewMessage
from app.main import ANSWERS
from app.store.admission import Admission
from tests.conftest import Client


@pytest.mark.parametrize("leaves", [False, True])
async def test_a_defect_is_told_to_who_waits_and_logged_where_nobody_does(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, *, leaves: bool
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def broken(*_: Any, **__: Any) -> None:
        begun.set()
        await go_on.wait()
        raise RuntimeError("a defect")

    monkeypatch.setattr(Admission, "begin", broken)
    answers = client.server.app[ANSWERS]  # type: ignore[attr-defined]  # a server of an application has it
    asking = asyncio.create_task(answers.ask("owner", NewMessage(content="Hi"), None, None))
    async with asyncio.timeout(10):
        await begun.wait()
        if leaves:
            asking.cancel()
            await asyncio.wait((asking,))
        (writing,) = answers._tasks
        go_on.set()
        await writing
        if not leaves:
            with pytest.raises(RuntimeError, match="a defect"):
                await asking
    assert caplog.text.count("RuntimeError: a defect") == (1 if leaves else 0)
