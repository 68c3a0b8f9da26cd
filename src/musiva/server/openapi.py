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
from musiva.server.bodies import ImagesBody, JobBody, VideoBody
from musiva.server.job_answers import (
    STATUSES,
    ClusterAnswer,
    EstimatesAnswer,
    Job,
    JobCancelled,
    JobCompleted,
    JobFailed,
    JobList,
    JobPreview,
    JobProgress,
    JobStatus,
    StandingAnswer,
    Video,
    VideoDeleted,
)
from musiva.server.openapi_parts import (
    HEADERS,
    Json,
    answer,
    body,
    error,
    in_path,
    in_query,
    ref,
    whole,
)

__all__ = ["openapi_document"]

BODIES = (ImagesBody, JobBody, VideoBody)
EVENTS = (PartialImage, Completed, Progress, ErrorEvent)
JOB_EVENTS = (JobStatus, JobProgress, JobPreview, JobCompleted, JobFailed, JobCancelled, ErrorEvent)
ANSWERS = (
    *(ImagesAnswer, ErrorAnswer, *EVENTS, Job, JobList, *JOB_EVENTS[:-1]),
    *(
        Video,
        VideoDeleted,
        StandingAnswer,
        EstimatesAnswer,
        ClusterAnswer,
        Model,
        ModelList,
        Health,
    ),
)
# Of a route that reads a body and asks the engine.
OF_BODIES = (400, 404, 408, 413, 415, 429, 500, 503)
STREAM_EXAMPLE = (
    'event: image_generation.completed\ndata: {"type":"image_generation.completed",'
    '"b64_json":"iVBORw0KGgo...","index":0,"seed":7,...}\n\n'
)
JOB_EXAMPLE = (
    'event: job.progress\ndata: {"type":"job.progress","index":0,"evaluation":3,'
    '"num_evaluations":28,...}\n\n'
)


def openapi_document(model: Model, *, keyed: bool) -> Json:
    """OpenAPI 3.1. keyed: whether clients need a key."""
    modes = [
        *((kind, "validation") for kind in BODIES),
        *((kind, "serialization") for kind in ANSWERS),
    ]
    _, schemas = models_json_schema(modes, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
    components: Json = {"schemas": _with_limits(schemas["$defs"], model), "headers": dict(HEADERS)}
    if keyed:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Musiva",
            "version": musiva.__version__,
            "description": "OpenAI's images and videos, with fields of our own, and jobs.",
        },
        "paths": _Paths(keyed).all(model),
        "components": components,
    }


class _Paths:
    """keyed: whether what is under /v1 asks for a key."""

    def __init__(self, keyed: bool) -> None:
        self._keyed = keyed

    def all(self, model: Model) -> Json:
        made = self._images(model) | self._jobs(model) | self._videos(model)
        return made | self._cluster() | self._models() | self._service()

    def _images(self, model: Model) -> Json:
        ours = {"prompt": "a fox", "size": model.size, "seed": 7, "steps": model.steps}
        openais = {"model": model.id, "prompt": "a fox", "n": 1, "response_format": "b64_json"}
        stream = {"prompt": "a fox", "stream": True, "partial_images": 2, "progress": True}
        timed = {"prompt": "a fox", "deadline": 20, "priority": 1}
        examples: dict[str, Json] = {"openai": openais, "ours": ours, "stream": stream}
        not_here = self._guarded("Not supported by this model.", 400)
        return {
            "/v1/images/generations": {
                "post": self._guarded(
                    "Make pictures from a prompt, in one answer or as a stream.",
                    *OF_BODIES,
                    requestBody=body(ImagesBody, {**examples, "timed": timed}),
                    ok={"200": _images()},
                )
            },
            "/v1/images/edits": {"post": not_here},
            "/v1/images/variations": {"post": not_here},
            "/v1/estimates": {
                "post": self._guarded(
                    "What a request would get that came now; nothing is made.",
                    *OF_BODIES,
                    requestBody=body(ImagesBody, {"timed": timed}),
                    ok=_json(EstimatesAnswer),
                )
            },
            "/v1/standing": {
                "get": self._guarded("How busy the server is.", 503, ok=_json(StandingAnswer))
            },
        }

    def _jobs(self, model: Model) -> Json:
        key = {"description": "gives the first job again", "schema": {"pattern": "^[!-~]{1,255}$"}}
        job = {"prompt": "a fox", "size": model.size, "previews": 4, "deadline": 60}
        made: Json = {
            "202": answer("the job, which is admitted", _content(Job), ["Location"]),
            "200": answer(
                "the job that this key made", _content(Job), ["Location", "Idempotent-Replayed"]
            ),
        }
        pages = [
            in_query("limit", "jobs to list, 20 if not said", whole(1, 100)),
            in_query("after", "begin behind the job of this id", {"type": "string"}),
            in_query("status", "only those", {"enum": list(STATUSES)}),
        ]
        events = {
            "schema": {"oneOf": [ref(event) for event in JOB_EVENTS]},
            "examples": {"progress": {"value": JOB_EXAMPLE}},
        }
        told: Json = {"200": answer("server-sent events", {"text/event-stream": events})}
        one = {"parameters": [in_path("job")]}
        return {
            "/v1/jobs": {
                "post": self._guarded(
                    "Make pictures that nobody waits for.",
                    *sorted((*OF_BODIES, 409)),
                    parameters=[{"name": "Idempotency-Key", "in": "header", **key}],
                    requestBody=body(JobBody, {"job": job}),
                    ok=made,
                ),
                "get": self._guarded(
                    "The jobs that are kept.", 400, parameters=pages, ok=_json(JobList)
                ),
            },
            "/v1/jobs/{job}": {"get": self._guarded("A job.", 404, **one, ok=_json(Job))},
            "/v1/jobs/{job}/result": {
                "get": self._guarded(
                    "Its pictures: `not_ready`, `job_failed` or `job_cancelled` if there are none.",
                    *(404, 409),
                    **one,
                    ok=_json(ImagesAnswer),
                )
            },
            "/v1/jobs/{job}/cancel": {
                "post": self._guarded(
                    "End a job; `job_ended` if it has.", 404, 409, **one, ok=_json(Job)
                )
            },
            "/v1/jobs/{job}/events": {
                "get": self._guarded("What it is, and what becomes of it.", 404, **one, ok=told)
            },
        }

    def _videos(self, model: Model) -> Json:
        one, file = {"parameters": [in_path("video")]}, answer("the file", _moving())
        openais: Json = {"model": model.id, "prompt": "a fox", "size": model.size}
        return {
            "/v1/videos": {
                "post": self._guarded(
                    "Make a clip that nobody waits for.",
                    *sorted((*OF_BODIES, 409)),
                    requestBody=body(VideoBody, {"openai": openais}),
                    ok=_json(Video),
                )
            },
            "/v1/videos/{video}": {
                "get": self._guarded("How far it is.", 404, **one, ok=_json(Video)),
                "delete": self._guarded(
                    "Forget it, and end it before.", 404, **one, ok=_json(VideoDeleted)
                ),
            },
            "/v1/videos/{video}/content": {
                "get": self._guarded(
                    "Its file: `not_ready`, `job_failed` or `job_cancelled` if there is none.",
                    *(404, 409),
                    **one,
                    ok={"200": file},
                )
            },
        }

    def _cluster(self) -> Json:
        return {
            "/v1/cluster": {
                "get": self._guarded("The workers of the server.", ok=_json(ClusterAnswer))
            },
            "/v1/cluster/{worker}/drain": {
                "post": self._guarded(
                    "Let what a worker has go on elsewhere, and end it; a new one takes its place.",
                    *(400, 503),
                    parameters=[in_path("worker")],
                    ok=_json(ClusterAnswer),
                )
            },
        }

    def _models(self) -> Json:
        return {
            "/v1/models": {"get": self._guarded("Which models there are.", ok=_json(ModelList))},
            "/v1/models/{name}": {
                "get": self._guarded(
                    "One model, its defaults and limits.",
                    404,
                    parameters=[in_path("name")],
                    ok=_json(Model),
                )
            },
        }

    def _service(self) -> Json:
        file = answer("the file", {f"image/{kind}": {} for kind in ("png", "jpeg", "webp")})
        figures = answer("text format 1.0.0", {"text/plain": {}})
        return {
            "/files/{name}": {
                "get": _operation(
                    'A picture that was answered by "url".',
                    404,
                    parameters=[in_path("name")],
                    ok={"200": file},
                )
            },
            "/healthz": {"get": _operation("Whether it works.", 503, ok=_json(Health))},
            "/metrics": {"get": _operation("Figures for Prometheus.", ok={"200": figures})},
        }

    def _guarded(self, summary: str, *errors: int, ok: Json | None = None, **parts: object) -> Json:
        if not self._keyed:
            return _operation(summary, *errors, ok=ok, **parts)
        return _operation(summary, *sorted((401, *errors)), ok=ok, security=[{"key": []}], **parts)


def _operation(summary: str, *errors: int, ok: Json | None = None, **parts: object) -> Json:
    """ok: answers of success by status."""
    refused = {str(status): error(status) for status in errors}
    return {"summary": summary, **parts, "responses": {**(ok or {}), **refused}}


def _moving() -> Json:
    return {f"image/{kind}": {} for kind in ("webp", "png", "jpeg")}


def _images() -> Json:
    stream = {
        "schema": {"oneOf": [ref(event) for event in EVENTS]},
        "examples": {"completed": {"value": STREAM_EXAMPLE}},
    }
    told = "the pictures; with `stream` true, server-sent events, whose `data` is this"
    return answer(told, {**_content(ImagesAnswer), "text/event-stream": stream})


def _with_limits(schemas: Mapping[str, Json], model: Model) -> Json:
    """n ends where the model says."""
    limited: Json = dict(schemas)
    for kind in BODIES:
        found = schemas[kind.__name__]
        fields: Mapping[str, Json] = found["properties"]  # type: ignore[assignment]
        n = {**fields["n"], "anyOf": [whole(1, model.max_images), {"type": "null"}]}
        limited[kind.__name__] = {**found, "properties": {**fields, "n": n}}
    return limited


def _json(kind: type) -> Json:
    return {"200": answer("ok", _content(kind))}


def _content(kind: type) -> Json:
    return {"application/json": {"schema": ref(kind)}}
