"""The model list, and the store of files."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from musiva.server.pictures import FileStore


def test_models_tell_sizes_that_are_allowed(client: TestClient) -> None:
    (model,) = client.get("/v1/models").json()["data"]
    assert client.get("/v1/models/tiny").json() == model
    assert model["sizes"][0] == model["size"] == "32x32"
    assert len(set(model["sizes"])) == len(model["sizes"]) >= 3
    assert model["sampler"] in model["samplers"]
    assert list(model["spacings"]) == model["samplers"]
    for size in model["sizes"]:
        body = {"prompt": "a fox", "size": size, "steps": 1, "n": 1}
        assert client.post("/v1/images/generations", json=body).json()["size"] == size


@pytest.mark.parametrize(
    ("field", "limit"),
    [
        ("steps", "max_steps"),
        ("guidance_scale", "max_guidance_scale"),
        ("n", "max_images"),
        ("partial_images", "max_partial_images"),
    ],
)
def test_models_tell_limits_that_hold(client: TestClient, field: str, limit: str) -> None:
    (model,) = client.get("/v1/models").json()["data"]
    body = {"prompt": "a fox", field: model[limit] + 1}
    error = client.post("/v1/images/generations", json=body).json()["error"]
    assert error["param"] == field
    assert f"to {model[limit]:g}" in error["message"]


def test_what_can_be_read_has_a_head(client: TestClient) -> None:
    body = {"prompt": "a fox", "steps": 1, "response_format": "url"}
    (picture,) = client.post("/v1/images/generations", json=body).json()["data"]
    paths = ["/", "/healthz", "/metrics", "/openapi.json", "/v1/models", "/v1/models/tiny"]
    for path in [*paths, picture["url"]]:
        head = client.head(path)
        assert head.status_code == 200, path
        assert head.headers["content-type"] == client.get(path).headers["content-type"]


def test_the_studio_is_served(client: TestClient) -> None:
    response = client.get("/")
    assert response.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in response.headers["content-security-policy"]


def test_store_keeps_the_latest_within_its_bytes() -> None:
    store = FileStore(max_bytes=100)
    names = [store.put(bytes([i]) * 30, "png") for i in range(5)]
    kept = [store.get(name) for name in names]
    assert kept[:2] == [None, None]
    assert [file.content[0] for file in kept[2:] if file] == [2, 3, 4]
    alone = store.put(bytes(500), "webp")
    assert [store.get(name) for name in names] == [None] * 5
    stored = store.get(alone)
    assert stored is not None
    assert stored.media_type == "image/webp"
