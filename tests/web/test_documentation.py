"""`openapi.json` and `/docs` say what there is, and nothing else."""

import re
from typing import Any

from pydantic import BaseModel, TypeAdapter

from app.domain.errors import all_errors
from app.web import schemas
from tests.conftest import Client, Start
from tests.support.browser import ask, get
from tests.support.scripted_upstream import ScriptedUpstream
from tests.support.sse import read_all


async def test_every_route_is_documented_and_every_documented_route_is_there(client: Client) -> None:
    document = await get(client, "/openapi.json")
    assert client.app is not None
    routes = {
        (route.method.lower(), route.resource.canonical)
        for route in client.app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    documented = {(method, path) for path, item in document["paths"].items() for method in item}
    files = {("get", path) for path in ("/", "/client.js", "/client.d.ts", "/assets/{name}")}
    assert routes - documented == {("get", "/docs"), ("get", "/openapi.json")} | files
    assert documented - routes == set()


async def test_every_error_code_is_listed_with_its_status(client: Client) -> None:
    document = await get(client, "/openapi.json")
    assert {code: entry["status"] for code, entry in document["x-error-codes"].items()} == {
        error.code: error.status for error in all_errors()
    }


async def test_every_reference_leads_somewhere(client: Client) -> None:
    document = await get(client, "/openapi.json")

    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if "$ref" in value else []
            return own + [name for item in value.values() for name in references(item)]
        if isinstance(value, list):
            return [name for item in value for name in references(item)]
        return []

    found = references(document)
    assert len(found) > 20
    for name in found:
        assert name.removeprefix("#/components/schemas/") in document["components"]["schemas"]


async def test_the_page_of_documentation_shows_every_route_and_code_and_asks_nobody_else(client: Client) -> None:
    document = await get(client, "/openapi.json")
    async with client.get("/docs") as response:
        assert response.content_type == "text/html"
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        page = await response.text()
    for path, item in document["paths"].items():
        for method in item:
            assert f"<code>{method.upper()} {path}</code>" in page
    for code in document["x-error-codes"]:
        assert f"<tr id='{code}'>" in page
    assert "<script" not in page
    links = re.findall(r"(?:src|href)=['\"]?([^'\" >]+)", page)
    assert links
    assert [link for link in links if not link.startswith(("#", "/"))] == []
    anchors = set(re.findall(r"id='([^']+)'", page))
    assert {link[1:] for link in links if link.startswith("#")} <= anchors


async def test_a_problems_type_leads_to_its_explanation(client: Client) -> None:
    problem = await get(client, "/conversations/x", status=404)
    async with client.get("/docs") as response:
        page = await response.text()
    path, _, code = problem["type"].partition("#")
    assert path == "/docs"
    assert f"id='{code}'" in page


async def test_events_and_replies_have_the_documented_shapes(client: Client, upstream: ScriptedUpstream) -> None:
    upstream.reply(["x"], tool_calls=[("a", "b", "{}")], usage=(1, 2, 3))
    async with client.post("/messages", json={"content": "Hi"}) as response:
        frames = await read_all(response)
    shapes: dict[str, type[BaseModel]] = {
        "start": schemas.StartEvent,
        "end": schemas.EndEvent,
        "tool_call": schemas.ToolCall,
    }
    checked = [shapes[frame.event].model_validate(frame.json) for frame in frames if frame.event in shapes]
    assert len(checked) == 3
    schemas.AnswerInOnePiece.model_validate(await ask(client, "Hi"))
    schemas.ModelList.model_validate(await get(client, "/models"))
    schemas.Health.model_validate(await get(client, "/health/live"))
    schemas.Health.model_validate(await get(client, "/health/ready"))
    message = TypeAdapter(schemas.UserMessage | schemas.Answer)
    for name in ("message", "reply_to"):
        message.validate_python(await get(client, f"/messages/{frames[0].json[name]}"))


async def test_the_models_are_those_that_may_be_asked_for_the_default_first(
    client: Client, upstream: ScriptedUpstream
) -> None:
    models = await get(client, "/models")
    assert models["object"] == "list"
    assert [model["id"] for model in models["data"]] == ["model-a", "model-b"]
    await ask(client, "Hi")
    await ask(client, "Hi", model="model-b")
    assert [request["model"] for request in upstream.requests] == ["model-a", "model-b"]


async def test_every_model_that_is_listed_may_be_asked_for_whatever_its_name(
    start: Start, upstream: ScriptedUpstream
) -> None:
    names = ["Llama 3 (8B)", "模型", "a/b:c@d", "x" * 200]
    client = await start(openai_model=",".join(names))
    assert [model["id"] for model in (await get(client, "/models"))["data"]] == names
    for name in names:
        assert (await ask(client, "Hi", model=name))["message"]["model"] == name
    assert [request["model"] for request in upstream.requests] == names
    assert (await ask(client, "Hi", model="Llama 4 (8B)", status=422))["code"] == "unknown_model"
