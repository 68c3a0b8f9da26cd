"""Clips over HTTP: in answers, streams and jobs, and as OpenAI's videos."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from musiva.client import Client, Completed, Preview
from musiva.core.clip import Clip
from musiva.core.provenance import read_parameters
from musiva.engine import Engine
from musiva.perf.small_clips import write_clips
from musiva.server import create_app
from musiva.telemetry import Metrics
from tests.server.live import events_in, live_server, wait_until

URL, JOBS, VIDEOS = "/v1/images/generations", "/v1/jobs", "/v1/videos"
SHORT = {"prompt": "a fox", "size": "32x48", "frames": 5, "steps": 2, "seed": 3}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    directory = tmp_path_factory.mktemp("pipelines") / "wan"
    write_clips("wan", directory)
    with Engine.load(directory, device="cpu") as engine:
        yield engine


@pytest.fixture(scope="module")
def client(engine: Engine) -> Iterator[TestClient]:
    with TestClient(create_app(engine, metrics=Metrics())) as client:
        yield client


@pytest.fixture(scope="module")
def expected(engine: Engine) -> np.ndarray:
    (clip,) = engine.generate("a fox", size=(32, 48), frames=5, steps=2, seed=3)
    return stacked(clip)


def stacked(clip: Any) -> np.ndarray:
    return np.stack([np.asarray(frame) for frame in clip.frames])


def file_of(told: dict[str, Any]) -> bytes:
    return base64.b64decode(told["b64_json"])


def test_a_clip_is_an_answer_like_a_picture(client: TestClient, expected: np.ndarray) -> None:
    exact = client.post(URL, json={**SHORT, "output_format": "png", "fps": 10}).json()
    assert (exact["output_format"], exact["size"]) == ("png", "32x48")
    # The first frame, and four in one; 2 x 3 tokens each.
    assert exact["usage"]["output_tokens"] == 2 * 2 * 3
    content = file_of(exact["data"][0])
    assert np.array_equal(stacked(Clip.read(content)), expected)
    assert Clip.read(content).fps == pytest.approx(10)
    known = read_parameters(content)
    assert (known["frames"], known["fps"], known["seed"]) == (5, 10.0, 3)
    small = client.post(URL, json=SHORT).json()
    assert small["output_format"] == "webp"
    again = stacked(Clip.read(file_of(small["data"][0])))
    assert again.shape == expected.shape
    assert read_parameters(file_of(small["data"][0]))["frames"] == 5


def test_a_stream_shows_the_middle_and_ends_with_the_clip(client: TestClient) -> None:
    body = {**SHORT, "steps": 5, "stream": True, "partial_images": 4}

    def ask() -> list[dict[str, Any]]:
        return events_in(client.post(URL, json=body).content)

    wait_until(lambda: any("partial_image" in event["type"] for event in ask()))
    events = ask()
    done = events[-1]
    assert (done["type"], done["output_format"]) == ("image_generation.completed", "webp")
    with Image.open(io.BytesIO(file_of(done))) as file:
        assert file.n_frames == 5  # type: ignore[attr-defined]
    for event in events[:-1]:
        with Image.open(io.BytesIO(file_of(event))) as file:
            assert (file.size, getattr(file, "n_frames", 1)) == ((32, 48), 1)


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("frames", 6, "allowed: 1, 5, 9 and so on to 161"),
        ("frames", 0, "a whole number that the model takes"),
        ("fps", 0.5, "a number from 1 to 60"),
        ("output_format", "jpeg", "webp or png, of a clip"),
    ],
)
def test_what_is_not_allowed(client: TestClient, field: str, value: object, told: str) -> None:
    answer = client.post(URL, json={**SHORT, field: value})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == field
    assert told in error["message"]


def test_the_model_tells_its_counts(client: TestClient) -> None:
    (model,) = client.get("/v1/models").json()["data"]
    told = {name: model[name] for name in ("frames", "min_frames", "max_frames", "frame_step")}
    assert told == {"frames": 81, "min_frames": 1, "max_frames": 161, "frame_step": 4}
    assert model["fps"] == 16.0


def test_a_rate_has_no_effect_on_a_picture(client: TestClient) -> None:
    told = client.post(URL, json={**SHORT, "frames": 1, "fps": 8}).json()
    assert told["output_format"] == "png"
    assert told["warnings"] == ["fps: has no effect on a picture"]


def test_a_job_has_the_clip_as_its_result(client: TestClient, expected: np.ndarray) -> None:
    job = client.post(JOBS, json={**SHORT, "output_format": "png"}).json()
    wait_until(lambda: client.get(f"{JOBS}/{job['id']}").json()["status"] == "succeeded")
    result = client.get(f"{JOBS}/{job['id']}/result").json()
    assert np.array_equal(stacked(Clip.read(file_of(result["data"][0]))), expected)


def test_a_video_from_its_creation_to_its_end(client: TestClient) -> None:
    body = {name: value for name, value in SHORT.items() if name != "frames"}
    made = client.post(VIDEOS, json={**body, "seconds": "0.5", "fps": 8}).json()
    assert (made["object"], made["size"], made["model"]) == ("video", "32x48", "wan")
    assert (made["frames"], made["fps"], made["seconds"]) == (5, 8.0, "0.625")
    at = f"{VIDEOS}/{made['id']}"
    wait_until(lambda: client.get(at).json()["status"] == "completed")
    done = client.get(at).json()
    assert (done["progress"], done["error"]) == (100, None)
    assert done["created_at"] <= done["completed_at"] < done["expires_at"]
    content = client.get(f"{at}/content")
    assert content.headers["content-type"] == "image/webp"
    assert len(Clip.read(content.content).frames) == 5
    assert client.get(f"{JOBS}/{made['id']}").json()["status"] == "succeeded"
    assert client.delete(at).json() == {
        "id": made["id"],
        "object": "video.deleted",
        "deleted": True,
    }
    assert client.get(f"{JOBS}/{made['id']}").status_code == 404


def test_a_running_video_is_deleted(client: TestClient) -> None:
    made = client.post(VIDEOS, json={**SHORT, "steps": 1000}).json()
    at = f"{VIDEOS}/{made['id']}"
    wait_until(lambda: client.get(at).json()["status"] == "in_progress")
    assert client.get(f"{at}/content").json()["error"]["code"] == "not_ready"
    assert client.delete(at).status_code == 200
    assert client.get(at).status_code == 404
    wait_until(lambda: client.get("/healthz").json()["running"] == 0)


def test_a_cancelled_job_is_a_video_that_failed(client: TestClient) -> None:
    made = client.post(VIDEOS, json={**SHORT, "steps": 1000}).json()
    client.post(f"{JOBS}/{made['id']}/cancel")
    told = client.get(f"{VIDEOS}/{made['id']}").json()
    assert (told["status"], told["error"]["code"]) == ("failed", "job_cancelled")
    assert told["completed_at"] is None


@pytest.mark.parametrize(
    ("more", "field", "told"),
    [
        ({"seconds": "1", "fps": 3, "frames": None}, "seconds", "1 to 161 frames in steps of 4"),
        ({"seconds": 2}, "seconds", "none beside frames"),
        ({"seconds": "soon", "frames": None}, "seconds", "a number above 0"),
        ({"n": 2}, "n", "1; /v1/videos/ID/content has the file"),
        ({"response_format": "url"}, "response_format", "b64_json; /v1/videos/ID/content"),
    ],
)
def test_what_is_no_video(
    client: TestClient, more: dict[str, object], field: str, told: str
) -> None:
    answer = client.post(VIDEOS, json={**SHORT, **more})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"] == field
    assert told in error["message"]


def test_the_client_and_a_remote_engine(
    engine: Engine, expected: np.ndarray, tmp_path: Path
) -> None:
    asked = {"size": (32, 48), "frames": 5, "steps": 4, "seed": 3}
    with live_server(engine, Metrics()) as (host, port):
        url = f"http://{host}:{port}"
        with Client(url) as client:
            (picture,) = client.generate("a fox", **asked)
            assert (picture.format, picture.moves, len(picture.clip.frames)) == ("webp", True, 5)
            assert picture.save(tmp_path / "fox.webp").read_bytes() == picture.content
            (again,) = client.like(tmp_path / "fox.webp", steps=2, output_format="png")
            assert np.array_equal(stacked(again.clip), expected)
            events = list(client.stream("a fox", **asked, previews=2))
            previews = [event.image.size for event in events if isinstance(event, Preview)]
            assert set(previews) <= {(32, 48)}
            (done,) = [event for event in events if isinstance(event, Completed)]
            assert len(done.picture.clip.frames) == 5
        with Engine.connect(url) as remote:
            (clip,) = remote.generate("a fox", size=(32, 48), frames=5, steps=2, seed=3)
            assert np.array_equal(stacked(clip), expected)
            options = {"size": (32, 48), "frames": 5, "steps": 2, "seed": 3}
            (event,) = [e for e in remote.stream("a fox", **options) if e.kind == "picture"]
            assert np.array_equal(event.picture, expected)
            (picture,) = remote.generate("a fox", size=(32, 48), frames=1, steps=2, seed=3)
            assert isinstance(picture, Image.Image)
