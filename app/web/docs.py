"""`GET /openapi.json`, and `GET /docs`: the same for people, one page without a script or a request to elsewhere."""

import asyncio
from functools import cache
from html import escape
from typing import Any, NamedTuple

from aiohttp import web

from app.domain.events import dump
from app.domain.version import VERSION
from app.web.security import DOCS_HEADERS

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
code, pre { font-family: ui-monospace, monospace; font-size: .9em }
h2 { margin-top: 2.5rem } h3 code { font-size: 1.05em }
td, th { padding: .2rem .8rem .2rem 0; text-align: left; vertical-align: top }
summary { cursor: pointer } pre { overflow-x: auto; padding: .8rem; border: 1px solid #8884; border-radius: .4rem }
section { border-top: 1px solid #8884; margin-top: 1.5rem }
"""


class DocsRoutes:
    """Both are made once, from the models, when somebody asks: that takes as long as a fifteenth of the start."""

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [web.get("/openapi.json", self.openapi), web.get("/docs", self.docs)]

    async def openapi(self, _: web.Request) -> web.Response:
        """`GET /openapi.json`."""
        docs = await asyncio.to_thread(_made)
        return web.Response(body=docs.json, content_type="application/json")

    async def docs(self, _: web.Request) -> web.Response:
        """`GET /docs`."""
        docs = await asyncio.to_thread(_made)
        return web.Response(body=docs.page, content_type="text/html", charset="utf-8", headers=DOCS_HEADERS)


class _Docs(NamedTuple):
    json: bytes
    page: bytes


@cache
def _made() -> _Docs:
    from app.web.openapi import document  # noqa: PLC0415 - the models that only this needs are a third of that time

    api = document(VERSION)
    return _Docs(dump(api).encode(), _page(api).encode())


def _page(api: dict[str, Any]) -> str:
    info = api["info"]
    sections = "".join(
        _section(method, path, operation) for path, item in api["paths"].items() for method, operation in item.items()
    )
    schemas = "".join(
        f"<details id='schema-{escape(name)}'><summary><code>{escape(name)}</code> {_words(schema.get('description', ''))}"
        f"</summary><table>{_fields(schema)}</table></details>"
        for name, schema in sorted(api["components"]["schemas"].items())
    )
    codes = "".join(
        f"<tr id='{code}'><td><code>{code}</code><td>{error['status']}<td>{'yes' if error['retryable'] else 'no'}"
        f"<td>{_words(error['description'])}"
        for code, error in api["x-error-codes"].items()
    )
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{info['title']}: the HTTP interface</title><style>{_STYLE}</style>"
        f"<h1>{info['title']} <small>{info['version']}</small></h1><p>{_words(info['description'])}"
        f"<p>For programs: <a href='/openapi.json'>openapi.json</a>.<h2>Requests</h2>{sections}"
        f"<h2>Errors</h2><p>Each is <code>application/problem+json</code>.<table><tr><th>code<th>status<th>try again"
        f"<th>meaning{codes}</table><h2>Objects</h2>{schemas}"
    )


def _section(method: str, path: str, operation: dict[str, Any]) -> str:
    parameters = "".join(
        f"<tr><td><code>{escape(item['name'])}</code><td>{item['in']}<td>{_words(item['description'])}"
        for item in operation.get("parameters", ())
    )
    body = operation.get("requestBody")
    sent = f"<p>Body: {_schema(body['content']['application/json']['schema'])}" if body else ""
    replies = "".join(
        f"<tr><td>{status}<td>{_words(reply['description'])}<td>"
        + ", ".join(f"{kind} {_schema(content['schema'])}" for kind, content in reply.get("content", {}).items())
        for status, reply in operation["responses"].items()
    )
    return (
        f"<section><h3><code>{method.upper()} {escape(path)}</code></h3><p>{_words(operation['summary'])}."
        f"{f'<table>{parameters}</table>' if parameters else ''}{sent}<table>{replies}</table></section>"
    )


def _fields(schema: dict[str, Any]) -> str:
    required = schema.get("required", ())
    return "".join(
        f"<tr><td><code>{escape(name)}</code><td>{_schema(field)}<td>{'' if name in required else 'optional'}"
        f"<td>{_words(field.get('description', ''))}"
        for name, field in schema.get("properties", {}).items()
    )


def _schema(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"<a href='#schema-{name}'>{name}</a>"
    for word in ("anyOf", "oneOf"):
        if word in schema:
            return " or ".join(map(_schema, schema[word]))
    if schema.get("type") == "array":
        return f"list of {_schema(schema.get('items', {}))}"
    if "enum" in schema:
        return escape(" | ".join(map(str, schema["enum"])))
    return escape(str(schema.get("const", schema.get("type", "anything"))))


def _words(text: str) -> str:
    """Escape a description, and show what stands between backticks as code."""
    parts = escape(text.strip()).split("`")
    return "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts))
