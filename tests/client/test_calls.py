"""Both clients against answers, good and bad, of a server that follows a script."""

from __future__ import annotations

import base64
import socket
import time

import pytest

from musiva.client import Completed, Picture, Preview, Progress, Timeout
from musiva.core.errors import (
    Cancelled,
    ExecutionFailed,
    InvalidInput,
    MusivaError,
    NonFinite,
    Overloaded,
    Unavailable,
    UnknownModel,
)
from tests.client.conftest import Ask
from tests.client.scripted import (
    RESET,
    STREAM,
    answer,
    completed,
    event,
    png,
    progress,
    scripted,
)


def generated(*seeds: int, **more: object) -> bytes:
    data = [{"b64_json": base64.b64encode(png(seed)).decode(), "seed": seed} for seed in seeds]
    return answer({"created": 1, "data": data, "output_format": "png", **more})


def refusal(status: str, message: str, code: str, param: str | None = None, **headers) -> bytes:
    error = {"message": message, "type": "invalid_request_error", "code": code, "param": param}
    return answer({"error": error}, status, **headers)


BUSY = refusal("503 Service Unavailable", "the server is shutting down", "unavailable")
FULL = refusal("429 Too Many Requests", "the queue is full", "rate_limit_exceeded", Retry_After="0")


def test_pictures(ask: Ask) -> None:
    with scripted([generated(7, 8, warnings=["quality: has no effect"])]) as server:
        asked = ask(
            server.url, "generate", "a fox", size=(8, 8), num_images=2, seed=7, guidance=2.0,
            client={"api_key": "secret"},
        )  # fmt: skip
    first, second = asked.value
    assert isinstance(first, Picture)
    assert (first.seed, first.index, first.format) == (7, 0, "png")
    assert (second.seed, second.index) == (8, 1)
    assert first.image.size == (8, 8)
    assert first.image is first.image
    assert first.image.getpixel((0, 0)) == (7, 0, 0)
    assert first.parameters["seed"] == 7
    assert first.warnings == ("quality: has no effect",)
    assert "content" not in repr(first)
    assert server.bodies == [
        {
            "prompt": "a fox",
            "size": "8x8",
            "n": 2,
            "seed": 7,
            "guidance_scale": 2.0,
            "response_format": "b64_json",
        }
    ]
    head = server.heads[0].lower()
    assert head.startswith("post /v1/images/generations http/1.1")
    assert "authorization: bearer secret" in head
    assert "content-type: application/json" in head
    assert "user-agent: musiva/" in head


def test_what_was_computed_is_told(ask: Ask) -> None:
    spent = {"computed": 1, "cost": 2.5, "share": 0.625, "tiles": [1, 2], "tile_counts": [4, 1]}
    data = [{"b64_json": base64.b64encode(png(7)).decode(), "seed": 7, **spent}]
    known = {"output_format": "png", "policy": "ras", "num_evaluations": 4}
    with scripted([answer({"data": data, **known})]) as server:
        (picture,) = ask(server.url, "generate", "a fox").value
    told = {"computed": 1, "cost": 2.5, "share": 0.625, "policy": "ras", "num_evaluations": 4}
    assert {name: getattr(picture, name) for name in told} == told
    assert (picture.tiles, picture.tile_counts) == ((1, 2), (4, 1))

    active = {"tiles": [1, 2], "active_tiles": [0, 1]}
    shown = {"b64_json": data[0]["b64_json"], "output_format": "png", "partial_image_index": 0}
    at = {"index": 0, "evaluation": 2, "num_evaluations": 4}
    script = [
        STREAM,
        progress(2, computed=1, cost=1.5, share=0.375, **active),
        event("image_generation.partial_image", computed=True, **shown, **at, **active),
        completed(policy="ras", num_evaluations=4, **spent),
    ]
    with scripted(script) as server:
        step, preview, done = ask(server.url, "stream", "a fox").value
    assert (step.computed, step.cost, step.share) == (1, 1.5, 0.375)
    assert preview.computed is True
    for one in (step, preview):
        assert (one.tiles, one.active_tiles) == ((1, 2), (False, True))
    assert {name: getattr(done.picture, name) for name in told} == told
    assert (done.picture.tiles, done.picture.tile_counts) == ((1, 2), (4, 1))


def test_an_older_server_tells_less(ask: Ask) -> None:
    with scripted([generated(7)]) as server:
        (picture,) = ask(server.url, "generate", "a fox").value
    assert (picture.computed, picture.cost, picture.share, picture.policy) == (None,) * 4
    assert (picture.tiles, picture.tile_counts) == (None, ())


def test_a_base_url_may_have_a_path(ask: Ask) -> None:
    with scripted([answer({"status": "ok"})]) as server:
        assert ask(f"{server.url}/musiva/", "health").value == {"status": "ok"}
    assert server.heads[0].startswith("GET /musiva/healthz ")


def test_models_and_metrics(ask: Ask) -> None:
    models = answer({"object": "list", "data": [{"id": "default"}]})
    with scripted([models]) as server:
        assert ask(server.url, "models").value == [{"id": "default"}]
    with scripted([answer("# HELP ü 1".encode(), kind="text/plain")]) as server:
        assert ask(server.url, "metrics").value == "# HELP ü 1"


@pytest.mark.parametrize("fault", [BUSY, FULL, RESET, b"HTTP/1.1 200 OK\r\nContent-Le"])
def test_a_second_attempt_sends_the_same_request(ask: Ask, fault: object) -> None:
    with scripted([fault], [fault], [generated(7)]) as server:
        asked = ask(server.url, "generate", "a fox")
    assert asked.error is None
    assert server.bodies[0]["seed"] == server.bodies[1]["seed"] == server.bodies[2]["seed"]
    assert server.bodies[0] == server.bodies[1] == server.bodies[2]


def test_attempts_end(ask: Ask) -> None:
    with scripted([BUSY], [BUSY], [FULL]) as server:
        ask(server.url, "generate", "a fox").failed(Overloaded, "the queue is full", server.url)
    with scripted([RESET], [RESET]) as server:
        asked = ask(server.url, "generate", "a fox", client={"retries": 1})
        asked.failed(Unavailable, "the connection broke", "(2 attempts)")
    with scripted([BUSY]) as server:
        ask(server.url, "health").failed(Unavailable, "shutting down")


def test_retry_after_is_waited_for(ask: Ask) -> None:
    busy = refusal("503 Busy", "busy", "unavailable", Retry_After="1")
    with scripted([busy], [generated(7)]) as server:
        start = time.monotonic()
        assert ask(server.url, "generate", "a fox").error is None
    assert 1 <= time.monotonic() - start < 5
    busy = refusal("503 Busy", "busy", "unavailable", Retry_After="86400")
    with scripted([busy]) as server:
        ask(server.url, "generate", "a fox").failed(Unavailable, "busy")


def test_no_server(ask: Ask) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    asked = ask(url, "generate", "a fox")
    asked.failed(Unavailable, url, "no connection", "(3 attempts)")
    asked = ask("http://nosuchhost.invalid", "models", client={"retries": 0})
    asked.failed(Unavailable, "http://nosuchhost.invalid/v1/models: no connection")


def test_a_slow_answer_is_given_up_and_not_asked_for_again(ask: Ask) -> None:
    with scripted([20.0]) as server:
        asked = ask(server.url, "generate", "a fox", timeout=0.1)
        asked.failed(Unavailable, "nothing came for 0.1 s")
        assert server.left.wait(5)
    with scripted([20.0]) as server:
        ask(server.url, "models", client={"timeout": Timeout(1, 0.1)}).failed(Unavailable)


@pytest.mark.parametrize(
    ("status", "message", "code", "param", "kind", "told"),
    [
        (
            400,
            "size: got '20x16'; allowed: a multiple of 8",
            "invalid_value",
            "size",
            InvalidInput,
            "size: got '20x16'; allowed: a multiple of 8",
        ),
        (
            400,
            "n: got 3; allowed: a whole number from 1 to 2",
            "invalid_value",
            "n",
            InvalidInput,
            "num_images: got 3; allowed: a whole number from 1 to 2",
        ),
        (
            413,
            "body: got more than 9 bytes; allowed: at most 9 bytes",
            "body_too_large",
            None,
            InvalidInput,
            "body: got 'more than 9 bytes'; allowed: at most 9 bytes",
        ),
        (400, "mehr Text!", "other", "prompt", InvalidInput, "prompt: got 'a fox'; allowed: what"),
        (404, "model: got 'x'; allowed: tiny", "model_not_found", "model", UnknownModel, "tiny"),
        (404, "POST /v1: Not Found", "not_found", None, InvalidInput, "base_url: got"),
        (301, "moved", "moved", None, InvalidInput, "base_url: got"),
        (401, "wrong key", "invalid_api_key", None, InvalidInput, "api_key: got '(hidden)'"),
        (499, "cancelled", "cancelled", None, Cancelled, "cancelled"),
        (500, "it broke", "execution_failed", None, ExecutionFailed, "it broke"),
        (500, "NaN", "non_finite", None, NonFinite, "NaN"),
        (500, "see the log", "internal_error", None, ExecutionFailed, "see the log"),
        (502, "bad gateway", "x", None, Unavailable, "bad gateway"),
    ],
)
def test_refusals_are_the_errors_that_an_engine_raises(
    ask: Ask,
    status: int,
    message: str,
    code: str,
    param: str | None,
    kind: type[MusivaError],
    told: str,
) -> None:
    with scripted([refusal(f"{status} No", message, code, param)]) as server:
        asked = ask(server.url, "generate", "a fox", size=(20, 16), num_images=3)
        error = asked.failed(kind, told)
    assert error.answer is not None
    assert (error.answer.status, error.answer.message) == (status, message)
    assert (error.answer.code, error.answer.param) == (code, param)
    if isinstance(error, InvalidInput):
        assert error.field
        assert error.allowed


@pytest.mark.parametrize(
    "body",
    [b"<html>502 nginx</html>", b"", b"[]", b'{"error": "text"}', b'{"error": {}}', b"[" * 9000],
)
def test_errors_that_are_not_in_openais_shape(ask: Ask, body: bytes) -> None:
    with scripted([answer(body, "500 Broken", "text/html")]) as server:
        error = ask(server.url, "generate", "a fox").failed(ExecutionFailed)
    assert error.answer is not None
    assert error.answer.status == 500
    assert len(str(error)) < 500


@pytest.mark.parametrize(
    "body",
    [
        b"<html>hello</html>",
        b"",
        b"[]",
        b"\xff\xfe",
        b'{"data": []}',
        b'{"data": [{"seed": 1}], "output_format": "png"}',
        b'{"data": [{"seed": 1, "b64_json": "!!!"}], "output_format": "png"}',
        b'{"data": [{"seed": 1, "b64_json": ""}], "output_format": "png"}',
        b'{"data": [{"seed": "1", "b64_json": "AAAA"}], "output_format": "png"}',
        b'{"data": [{"seed": 1, "b64_json": "AAAA", "cost": "1"}], "output_format": "png"}',
        b'{"data": [{"seed": 1, "b64_json": "AAAA", "tiles": [1]}], "output_format": "png"}',
        b'{"data": [{"seed": 1, "b64_json": "AAAA", "tiles": [1, 2.5]}], "output_format": "png"}',
        b'{"data": 5}',
        b"[" * 200_000,
    ],
)
def test_answers_that_no_musiva_server_gives(ask: Ask, body: bytes) -> None:
    with scripted([answer(body)]) as server:
        asked = ask(server.url, "generate", "a fox")
        asked.failed(Unavailable, server.url, "not the answer of a Musiva server")


def test_a_stream(ask: Ask) -> None:
    preview = {"b64_json": base64.b64encode(png(1)).decode(), "partial_image_index": 0}
    numbers = {"index": 0, "evaluation": 2, "num_evaluations": 4, "output_format": "png"}
    script = [
        STREAM,
        b": waiting\n\n",
        progress(0, waiting=3),
        event("image_generation.partial_image", **preview, **numbers),
        event("image_generation.tiles", new="event"),
        progress(4) + completed(0, 7, warnings=["x"])[:40],
        completed(0, 7, warnings=["x"])[40:] + completed(1, 8),
    ]
    with scripted(script) as server:
        asked = ask(server.url, "stream", "a fox", previews=1, num_images=2, seed=7)
    waiting, shown, last, first, second = asked.value
    assert waiting == Progress(index=0, evaluation=0, num_evaluations=4, waiting=3)
    assert isinstance(shown, Preview)
    assert (shown.number, shown.evaluation, shown.image.size) == (0, 2, (8, 8))
    assert last == Progress(index=0, evaluation=4, num_evaluations=4)
    assert isinstance(first, Completed)
    assert (first.index, first.picture.seed, first.picture.warnings) == (0, 7, ("x",))
    assert first.timing == {"seconds": 0.5}
    assert (second.index, second.picture.index, second.picture.seed) == (1, 1, 8)
    body = server.bodies[0]
    assert (body["stream"], body["partial_images"], body["progress"]) == (True, 1, True)
    assert "partial_format" not in body


def test_previews_in_a_format_of_their_own(ask: Ask) -> None:
    with scripted([STREAM, completed(0)]) as server:
        ask(server.url, "stream", "a fox", previews=1, preview_format="jpeg")
    assert server.bodies[0]["partial_format"] == "jpeg"


def test_a_stream_that_breaks_says_how_far_it_got(ask: Ask) -> None:
    begun = [STREAM, progress(1), progress(2), completed(0), progress(3, index=1)]
    for end in ([RESET], []):
        # Reading what came before a reset is not certain, so the client gets a moment.
        with scripted([*begun, 0.2, *end]) as server:
            asked = ask(server.url, "stream", "a fox", num_images=2)
            told = "after evaluation 3 of 4 of picture 1, 1 of 2 pictures complete"
            asked.failed(Unavailable, server.url, told)
        assert len(asked.value) == 4
    with scripted([STREAM, progress(1), 20.0]) as server:
        asked = ask(server.url, "stream", "a fox", timeout=0.2)
        asked.failed(Unavailable, "nothing came for 0.2 s, after evaluation 1 of 4")


def test_a_stream_is_asked_for_again_only_before_its_first_event(ask: Ask) -> None:
    with scripted([BUSY], [STREAM, b": hello\n\n", 0.1, RESET], [STREAM, completed()]) as server:
        asked = ask(server.url, "stream", "a fox")
    assert asked.error is None
    assert len(asked.value) == 1
    assert server.bodies[0] == server.bodies[2]


def test_what_breaks_after_the_last_picture_does_no_harm(ask: Ask) -> None:
    with scripted([STREAM, completed(), 0.1, RESET]) as server:
        asked = ask(server.url, "stream", "a fox")
    assert asked.error is None
    assert len(asked.value) == 1


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        ({"message": "NaN in step 3", "code": "non_finite"}, NonFinite, "NaN in step 3"),
        ({"message": "full", "code": "rate_limit_exceeded"}, Overloaded, "full"),
        ({"message": "shutting down", "code": "unavailable"}, Unavailable, "shutting down"),
        (
            {"message": "seed: got 1; allowed: 2", "code": "invalid_value", "param": "seed"},
            InvalidInput,
            "seed: got 5; allowed: 2",
        ),
        ({"message": "odd", "code": None}, ExecutionFailed, "odd"),
    ],
)
def test_an_error_event_is_raised(
    ask: Ask, error: dict[str, object], kind: type[MusivaError], told: str
) -> None:
    with scripted([STREAM, progress(1), event("error", error=error)]) as server:
        asked = ask(server.url, "stream", "a fox", seed=5)
    asked.failed(kind, told)
    assert len(asked.value) == 1


@pytest.mark.parametrize(
    "bad",
    [
        b"data: {garbage\n\n",
        b"data: [1]\n\n",
        b"event: image_generation.completed\ndata: {}\n\n",
        b"event: error\ndata: {}\n\n",
        event("image_generation.progress", index="0", evaluation=1, num_evaluations=2),
    ],
)
def test_events_that_make_no_sense(ask: Ask, bad: bytes) -> None:
    with scripted([STREAM, progress(1), bad, completed()]) as server:
        asked = ask(server.url, "stream", "a fox")
    asked.failed(Unavailable, "not the answer of a Musiva server: event")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_proxy_of_the_environment_is_not_for_this_machine(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    health = answer({"status": "ok"})
    with scripted([health], [health]) as server:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, server.url)
        near = server.url.replace("127.0.0.1", host)
        assert ask(near, "health").value == {"status": "ok"}
        assert ask("http://elsewhere.invalid", "health").value == {"status": "ok"}
    paths = [head.split()[1] for head in server.heads]
    assert paths == ["/healthz", "http://elsewhere.invalid/healthz"]
