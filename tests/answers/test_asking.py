"""What is asked with, and how long it is kept."""

import json

from app.answers.asking import Asking
from app.domain.ids import MessageRef
from app.domain.messages import AnswerHead
from app.upstream.client import Upstream
from app.upstream.deltas import Finish
from app.upstream.retries import Retrying
from tests.support.scripted_upstream import ScriptedUpstream

HEAD = AnswerHead(MessageRef("0" * 32, 2), 1, 2, "m", 0)


async def test_the_history_is_kept_until_the_answer_has_begun_and_no_longer(upstream: ScriptedUpstream) -> None:
    gate = upstream.gate()
    upstream.error(503)
    upstream.reply(["a", "b"], gate=gate)
    records = [json.dumps({"role": "user", "content": "Hi"})]
    async with Upstream(base_url=upstream.base_url) as client:
        asking = Asking(Retrying(client, 30), models=["m"], context_tokens=None, defaults={})
        stream = asking.deltas(HEAD, "Be brief.", records, {})
        await anext(stream)  # it is asked again
        assert len(records) == 1
        gate.release()
        assert await anext(stream) == ("message", "a")
        assert records == []
        gate.open()
        rest = [delta async for delta in stream]
    assert rest == [("message", "b"), Finish("stop", "scripted-model", None)]
    wanted = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    assert [request["messages"] for request in upstream.requests] == [wanted, wanted]
