"""The other yardstick: a chat backend as most people write it: `python fastapi_stack.py PORT UPSTREAM REDIS`, in its own venv.

FastAPI on uvicorn, the openai SDK, sse-starlette, a conversation as a Redis list. What is stored is stored at the end.
"""

import json
import sys
import uuid
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from openai import AsyncOpenAI
from pydantic import BaseModel
from redis.asyncio import Redis
from sse_starlette import EventSourceResponse

_, PORT, UPSTREAM, REDIS = sys.argv

app = FastAPI()
client = AsyncOpenAI(base_url=UPSTREAM, api_key="none")
# With the default of 100 connections it fails at 500 streams.
redis = Redis.from_url(REDIS, decode_responses=True, max_connections=1000)


class Message(BaseModel):
    """What a user says."""

    content: str
    model: str
    conversation: str | None = None


@app.post("/messages", response_model=None)
async def messages(message: Message, request: Request) -> EventSourceResponse | dict[str, Any]:
    """Answer a message, as a stream or in one piece."""
    conversation = message.conversation or uuid.uuid4().hex
    key = f"conversation:{conversation}"
    await redis.rpush(key, json.dumps({"role": "user", "content": message.content}))
    history = [json.loads(item) for item in await redis.lrange(key, 0, -1)]
    if "application/json" in request.headers.get("accept", ""):
        completion = await client.chat.completions.create(model=message.model, messages=history)
        text = completion.choices[0].message.content or ""
        await redis.rpush(key, json.dumps({"role": "assistant", "content": text}))
        return {"conversation": conversation, "text": text}
    return EventSourceResponse(stream(key, message.model, history))


async def stream(key: str, model: str, history: list[Any]) -> AsyncIterator[dict[str, str]]:
    """Yield an answer's events, and store it when it is whole."""
    text = ""
    async for chunk in await client.chat.completions.create(model=model, messages=history, stream=True):
        if piece := chunk.choices[0].delta.content:
            text += piece
            yield {"data": json.dumps({"text": piece})}
    await redis.rpush(key, json.dumps({"role": "assistant", "content": text}))
    yield {"event": "end", "data": "{}"}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(PORT), log_level="critical", access_log=False)
