"""The forms in which the contestants are asked and answer; each has what a reader must know of it."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from tests.bench.script import Script
from tests.support.sse import parse_all

NO_END = "there is no end"


class Told(NamedTuple):
    """What a body says: its text, in how many events that came, and what is wrong with the rest (empty: nothing)."""

    text: str
    events: int
    wrong: str


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
    return Told("".join(pieces), len(pieces), "" if frames[-1:] == ["[DONE]"] else NO_END)


def _question(script: Script) -> dict[str, Any]:
    return {"content": "Hi", "model": script.model}


def _parley(body: str) -> Told:
    frames = parse_all(body)
    pieces = [frame.data for frame in frames if frame.event == "message"]
    wrong = ""
    if not frames or frames[-1].event != "end":
        wrong = NO_END
    elif frames[-1].json["status"] != "completed":
        wrong = frames[-1].data
    elif notices := [frame.data for frame in frames if frame.event == "notice"]:
        wrong = f"there is nothing to notice about this upstream: {notices[0]}"
    elif int(frames[-1].id) != sum(map(len, pieces)) + 2:  # the position of the end: all text was counted, once
        wrong = f"{sum(map(len, pieces))} characters, and the end at {frames[-1].id}"
    return Told("".join(pieces), len(pieces), wrong)


def _stack(body: str) -> Told:
    frames = parse_all(body.replace("\r\n", "\n"))
    pieces = [frame.json["text"] for frame in frames if frame.event == "message"]
    return Told("".join(pieces), len(pieces), "" if frames and frames[-1].event == "end" else NO_END)


DIALECTS = {
    "openai": Dialect(_openai_question, _openai, lambda body: str(body["choices"][0]["message"]["content"])),
    "parley": Dialect(_question, _parley, lambda body: str(body["message"]["content"])),
    "stack": Dialect(_question, _stack, lambda body: str(body["text"])),
}
