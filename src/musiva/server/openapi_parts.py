"""The pieces of an OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from musiva.server.answers import ErrorAnswer
from musiva.server.middleware import REQUEST_ID

__all__ = ["HEADERS", "Json", "answer", "body", "error", "in_path", "in_query", "ref", "whole"]

Json = dict[str, object]
ERRORS = {
    400: "a value is not allowed; `param` names it",
    401: "no API key, or a wrong one",
    404: "no such model, job or path",
    408: "the body did not come in time",
    409: "not as things are; `code` tells why",
    413: "the body is too long",
    415: "the body is not sent as application/json",
    429: "too many requests, or a deadline that cannot be kept; Retry-After says when to come back",
    500: "the request failed while it ran",
    503: "the server is shutting down, or its engine has stopped",
}
# By name, of all answers that have them.
HEADERS: Mapping[str, Json] = {
    REQUEST_ID: {"description": "of this request", "schema": {"type": "string"}},
    "Retry-After": {"description": "seconds", "schema": {"type": "integer", "minimum": 1}},
    "WWW-Authenticate": {"description": "Bearer", "schema": {"type": "string"}},
    "Location": {"description": "of the job", "schema": {"type": "string"}},
    "Idempotent-Replayed": {
        "description": "the key came before: this is the job that it made",
        "schema": {"const": "true"},
    },
}
OF_STATUS = {401: ("WWW-Authenticate",), 429: ("Retry-After",)}


def answer(description: str, content: Json, headers: Sequence[str] = ()) -> Json:
    """content: schemas, or more about each, by media type."""
    named = {name: {"$ref": f"#/components/headers/{name}"} for name in (REQUEST_ID, *headers)}
    return {"description": description, "headers": named, "content": content}


def error(status: int) -> Json:
    content: Json = {"application/json": {"schema": ref(ErrorAnswer)}}
    return answer(ERRORS[status], content, OF_STATUS.get(status, ()))


def body(kind: type, examples: Mapping[str, Json]) -> Json:
    named = {name: {"value": value} for name, value in examples.items()}
    content = {"application/json": {"schema": ref(kind), "examples": named}}
    return {"required": True, "content": content}


def ref(model: type) -> Json:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def whole(low: int, high: int) -> Json:
    return {"type": "integer", "minimum": low, "maximum": high}


def in_path(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def in_query(name: str, description: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "description": description, "schema": schema}
