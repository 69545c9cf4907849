"""Event streams for the decoder's tests: how one is made, and what it means."""

import json
from typing import Any

from app.upstream.decoder import Decoder
from app.upstream.deltas import Delta, Finish, Piece
from tests.support.scripted_upstream import chunk

STOP = chunk({}, "stop", "m")
END = Finish("stop", "m", None)


def text(piece: str) -> bytes:
    """Return the event of one piece of text, with escapes as Python's json makes them."""
    choices = [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]
    return b"data: " + json.dumps({"model": "m", "choices": choices}).encode() + b"\n\n"


def think(piece: str, name: str = "reasoning_content") -> bytes:
    return chunk({name: piece}, model="m")


def call(**piece: Any) -> bytes:
    return chunk({"tool_calls": [piece]}, model="m")


def says(text: str) -> Piece:
    """Return a piece of the answer's text."""
    return ("message", text)


def thinks(text: str) -> Piece:
    """Return a piece of the model's reasoning."""
    return ("reasoning", text)


def said_in(deltas: list[Delta]) -> str:
    """Return the text of an answer."""
    return "".join(delta[1] for delta in deltas if isinstance(delta, tuple) and delta[0] == "message")


def decode(*feeds: bytes) -> list[Delta]:
    """Return all that a stream in these feeds means, the connection having ended then.

    Feeds that are one event of text are taken both ways, and have to mean the same.
    """
    quick, thorough = Decoder(), Decoder()
    deltas: list[Delta] = []
    for data in feeds:
        said = quick.text(data)
        meant = quick.feed(data) if said is None else [says(said)]
        assert meant == thorough.feed(data)
        deltas += meant
    end = quick.close()
    assert end == thorough.close()
    assert quick.tokens == thorough.tokens
    return deltas + end


def joined(deltas: list[Delta]) -> list[Delta]:
    """Join neighbouring pieces of a kind."""
    out: list[Delta] = []
    for delta in deltas:
        last = out[-1] if out else None
        if isinstance(delta, tuple) and isinstance(last, tuple) and last[0] == delta[0]:
            out[-1] = (delta[0], last[1] + delta[1])
        else:
            out.append(delta)
    return out
