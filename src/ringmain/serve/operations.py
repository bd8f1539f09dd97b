"""What the API offers, declared once: each operation's parameters, body and answer as typed structs.

The declarations convert and check what comes in, and `/openapi.json` is made of them; nothing is described twice.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from ringmain.serve.access import Refused
from ringmain.serve.shapes import Failure

Handler = Callable[[Request, Any, Any], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path.

    `query` and `body` are None where there are none; `answer` is a struct, one of several, or a media type.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    answer: type[Any] | tuple[type[Any], ...] | str
    query: type[Any] | None = None
    body: type[Any] | None = None
    protected: bool = True
    answers_more: tuple[str, ...] = ()
    """Further media types of the answer."""

    async def __call__(self, request: Request) -> Response:
        """Convert what came in and hand it to the handler. Raises Refused."""
        query = None if self.query is None else self._query(request)
        if self.query is None and request.query_params:
            raise Refused(
                400, "parameter", f"expected no parameters, found {next(iter(request.query_params))!r}"
            )
        body = None
        if self.body is not None:
            try:
                body = msgspec.json.decode(await request.body(), type=self.body)
            except msgspec.ValidationError as error:
                raise Refused(400, "body", _problem(str(error), "member", self.body, None)) from None
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise Refused(400, "body", f"expected {self.body.__name__} as JSON: {error}") from None
        return await self.handler(request, query, body)

    def _query(self, request: Request) -> Any:
        given: dict[str, str] = {}
        for name, value in request.query_params.multi_items():
            if name in given:
                raise Refused(400, "parameter", f"expected {name!r} once")
            given[name] = value
        try:
            return msgspec.convert(given, self.query, strict=False)
        except msgspec.ValidationError as error:
            raise Refused(400, "parameter", _problem(str(error), "parameter", self.query, given)) from None


def _problem(text: str, noun: str, struct: Any, given: dict[str, str] | None) -> str:
    """msgspec's message about a query or a body as `name: expected ..., found ...`."""
    if missing := re.fullmatch(r"Object missing required field `(.*)`", text):
        return f"expected a {noun} {missing[1]!r}, found none"
    if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", text):
        return f"expected one of {', '.join(struct.__struct_fields__)}, found the {noun} {unknown[1]!r}"
    if wrong := re.fullmatch(r"(?:Expected|Invalid) (.*) - at `\$\.(.*)`", text, re.DOTALL):
        wanted, _, got = wrong[1].partition(", got ")
        for kind, word in (("`int`", "a whole number"), ("`float`", "a number"), ("`str`", "a text")):
            wanted, got = wanted.replace(kind, word), got.replace(kind, word)
        return (
            f"{wrong[2]}: expected {wanted}, found {got if given is None else repr(given.get(wrong[2], ''))}"
        )
    return text


def openapi(operations: list[Operation], version: str) -> dict[str, Any]:
    """The OpenAPI 3.1 description of the operations."""
    structs: list[Any] = [Failure]
    for operation in operations:
        structs += [kind for kind in (operation.body, operation.query) if kind is not None]
        structs += _structs(operation)
    # by identity: each struct once, in order
    unique = list({id(kind): kind for kind in structs}.values())
    schemas, components = msgspec.json.schema_components(unique, ref_template="#/components/schemas/{name}")
    schema_of = dict(zip(map(id, unique), schemas, strict=True))
    paths: dict[str, Any] = {}
    queries = {operation.query.__name__ for operation in operations if operation.query is not None}
    for operation in operations:
        answer: dict[str, Any] = {}
        if isinstance(operation.answer, str):
            answer = {operation.answer: {}}
        else:
            found = [schema_of[id(kind)] for kind in _structs(operation)]
            answer = {"application/json": {"schema": found[0] if len(found) == 1 else {"oneOf": found}}}
        described: dict[str, Any] = {
            "summary": operation.summary,
            "operationId": f"{operation.method.lower()}_{operation.path.strip('/').replace('/', '_').replace('.', '_')}",
            "responses": {
                "200": {
                    "description": operation.summary,
                    "content": answer | {kind: {} for kind in operation.answers_more},
                },
                "default": {
                    "description": "what was expected, and found",
                    "content": {"application/json": {"schema": schema_of[id(Failure)]}},
                },
            },
        }
        if operation.query is not None:
            described["parameters"] = _parameters(components[operation.query.__name__])
        if operation.body is not None:
            described["requestBody"] = {
                "required": True,
                "content": {"application/json": {"schema": schema_of[id(operation.body)]}},
            }
        if operation.protected:
            described["security"] = [{}, {"token": []}]
        paths.setdefault(operation.path, {})[operation.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Ringmain",
            "version": version,
            "description": "Live values, history and SQL of one node.",
        },
        "paths": paths,
        "components": {
            "schemas": {name: schema for name, schema in components.items() if name not in queries},
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "where the node has a token"}
            },
        },
    }


def _structs(operation: Operation) -> list[type[Any]]:
    """What the operation may answer with."""
    if isinstance(operation.answer, str):
        return []
    return list(operation.answer) if isinstance(operation.answer, tuple) else [operation.answer]


def _parameters(schema: dict[str, Any]) -> list[dict[str, Any]]:
    required = schema.get("required", [])
    parameters = []
    for name, described in schema["properties"].items():
        about = {key: value for key, value in described.items() if key != "description"}
        parameter = {"name": name, "in": "query", "required": name in required, "schema": about}
        if "description" in described:
            parameter["description"] = described["description"]
        parameters.append(parameter)
    return parameters
