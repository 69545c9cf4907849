"""The forms in which the contestants are asked and answer; each has what a reader must know of it."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from tests.bench.script import Script
from tests.support.sse import parse_all


class Told(NamedTuple):
    """What a body says: its text, in how many events that came, and whether its end came too."""

    text: str
    events: int
    ended: bool


class Dialect(NamedTuple):
    """How to ask for a script's answer, and how to understand what comes, streamed and in one piece."""

    question: Callable[[Script], dict[str, Any]]
    told: Callable[[str], Told]
    whole: Callable[[Any], str]


def _openai_question(script: Script) -> dict[str, Any]:
    return {"model": script.model, "messages": [{"role": "user", "content": "Hi"}], "stream": True}


def _openai(body: str) -> Told:
    frames = [frame.data for frame in parse_all(body)]
    choices = [json.loads(data)["choices"][0] for data in frames if data != "[DONE]"]
    pieces = [choice["delta"]["content"] for choice in choices if "content" in choice["delta"]]
    return Told("".join(pieces), len(pieces), frames[-1:] == ["[DONE]"])


def _question(script: Script) -> dict[str, Any]:
    return {"content": "Hi", "model": script.model}


def _parley(body: str) -> Told:
    frames = parse_all(body)
    pieces = [frame.data for frame in frames if frame.event == "message"]
    ended = bool(frames) and frames[-1].event == "end" and frames[-1].json["status"] == "completed"
    # The last id is the position of the end: all text was counted, once.
    return Told("".join(pieces), len(pieces), ended and int(frames[-1].id) == sum(map(len, pieces)) + 2)


def _stack(body: str) -> Told:
    frames = parse_all(body.replace("\r\n", "\n"))
    pieces = [frame.json["text"] for frame in frames if frame.event == "message"]
    return Told("".join(pieces), len(pieces), frames[-1:] != [] and frames[-1].event == "end")


DIALECTS = {
    "openai": Dialect(_openai_question, _openai, lambda body: str(body["choices"][0]["message"]["content"])),
    "parley": Dialect(_question, _parley, lambda body: str(body["message"]["content"])),
    "stack": Dialect(_question, _stack, lambda body: str(body["text"])),
}
