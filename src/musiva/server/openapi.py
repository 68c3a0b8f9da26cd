"""The OpenAPI document: what is asked, what is answered, and with which statuses.

Written here rather than gathered from the routes, since one route answers in two media types and
none answers 422; tests hold real answers against it.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic.json_schema import models_json_schema

import musiva
from musiva.server.answers import (
    Completed,
    ErrorAnswer,
    ErrorEvent,
    Health,
    ImagesAnswer,
    Model,
    ModelList,
    PartialImage,
    Progress,
)
from musiva.server.images import ImagesBody

__all__ = ["openapi_document"]

Json = dict[str, object]
ANSWERS = (
    *(ImagesAnswer, PartialImage, Completed, Progress, ErrorEvent, ErrorAnswer),
    *(Model, ModelList, Health),
)
EVENTS = (PartialImage, Completed, Progress, ErrorEvent)
ERRORS = {
    400: "a value is not allowed; `param` names it",
    401: "no API key, or a wrong one",
    404: "no such model or path",
    408: "the body did not come in time",
    413: "the body is too long",
    415: "the body is not sent as application/json",
    429: "too many requests; Retry-After says when to come back",
    500: "the request failed while it ran",
    503: "the server is shutting down, or its engine has stopped",
}
STREAM_EXAMPLE = (
    'event: image_generation.completed\ndata: {"type":"image_generation.completed",'
    '"b64_json":"iVBORw0KGgo...","index":0,"seed":7,...}\n\n'
)


def openapi_document(model: Model, *, keyed: bool) -> Json:
    """OpenAPI 3.1. keyed: whether clients need a key."""
    modes = [(ImagesBody, "validation"), *((answer, "serialization") for answer in ANSWERS)]
    _, schemas = models_json_schema(modes, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
    components: Json = {"schemas": _with_limits(schemas["$defs"], model)}
    if keyed:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Musiva",
            "version": musiva.__version__,
            "description": "OpenAI's images API, with fields of our own.",
        },
        "paths": _paths(model, keyed),
        "components": components,
    }


def _paths(model: Model, keyed: bool) -> Json:
    def public(summary: str, *errors: int, **parts: object) -> Json:
        answers = {"200": parts.pop("ok")} if "ok" in parts else {}
        return {
            "summary": summary,
            **parts,
            "responses": answers | {str(status): _error(status) for status in errors},
        }

    def guarded(summary: str, *errors: int, **parts: object) -> Json:
        if not keyed:
            return public(summary, *errors, **parts)
        return public(summary, 401, *errors, security=[{"key": []}], **parts)

    not_here = guarded("Not supported by this model.", 400)
    return {
        "/v1/images/generations": {
            "post": guarded(
                "Make pictures from a prompt, in one answer or as a stream.",
                *(400, 404, 408, 413, 415, 429, 500, 503),
                requestBody=_request_body(model),
                ok=_images(),
            )
        },
        "/v1/images/edits": {"post": not_here},
        "/v1/images/variations": {"post": not_here},
        "/v1/models": {"get": guarded("Which models there are.", ok=_json(ModelList))},
        "/v1/models/{name}": {
            "get": guarded(
                "One model, its defaults and limits.",
                404,
                parameters=[_in_path("name")],
                ok=_json(Model),
            )
        },
        "/files/{name}": {
            "get": public(
                'A picture that was answered by "url".',
                404,
                parameters=[_in_path("name")],
                ok={
                    "description": "the file",
                    "content": {f"image/{kind}": {} for kind in ("png", "jpeg", "webp")},
                },
            )
        },
        "/healthz": {"get": public("Whether it works.", 503, ok=_json(Health))},
        "/metrics": {
            "get": public(
                "Figures for Prometheus.",
                ok={"description": "text format 1.0.0", "content": {"text/plain": {}}},
            )
        },
    }


def _request_body(model: Model) -> Json:
    ours = {"prompt": "a fox", "size": model.size, "seed": 7, "steps": model.steps}
    openais = {"model": model.id, "prompt": "a fox", "n": 1, "response_format": "b64_json"}
    stream = {"prompt": "a fox", "stream": True, "partial_images": 2, "progress": True}
    examples = {"openai": openais, "ours": ours, "stream": stream}
    named = {name: {"value": value} for name, value in examples.items()}
    content = {"application/json": {"schema": _ref(ImagesBody), "examples": named}}
    return {"required": True, "content": content}


def _images() -> Json:
    return {
        "description": "the pictures; with `stream` true, server-sent events, whose `data` is this",
        "content": {
            "application/json": {"schema": _ref(ImagesAnswer)},
            "text/event-stream": {
                "schema": {"oneOf": [_ref(event) for event in EVENTS]},
                "examples": {"completed": {"value": STREAM_EXAMPLE}},
            },
        },
    }


def _with_limits(schemas: Mapping[str, Json], model: Model) -> Json:
    """n ends where the model says."""
    body = schemas[ImagesBody.__name__]
    fields: Mapping[str, Json] = body["properties"]  # type: ignore[assignment]
    n = {**fields["n"], "anyOf": [_whole(1, model.max_images), {"type": "null"}]}
    return {**schemas, ImagesBody.__name__: {**body, "properties": {**fields, "n": n}}}


def _error(status: int) -> Json:
    answer = {**_json(ErrorAnswer), "description": ERRORS[status]}
    if status == 429:
        schema = {"schema": {"type": "integer", "minimum": 1}}
        answer["headers"] = {"Retry-After": {"description": "seconds", **schema}}
    return answer


def _json(answer: type) -> Json:
    return {"description": "ok", "content": {"application/json": {"schema": _ref(answer)}}}


def _ref(model: type) -> Json:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def _whole(low: int, high: int) -> Json:
    return {"type": "integer", "minimum": low, "maximum": high}


def _in_path(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
