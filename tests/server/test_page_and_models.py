"""The page at /, the model list, and the store of files."""

from __future__ import annotations

import re

from fastapi.testclient import TestClient

from musiva.server.images import ImagesBody
from musiva.server.pictures import FileStore


def test_page_is_whole_and_loads_nothing_from_elsewhere(client: TestClient) -> None:
    response = client.get("/")
    page = response.text
    assert response.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert page.rstrip().endswith("</html>")
    assert not re.search(r"""(src|href)\s*=\s*["'](https?:)?//""", page)
    assert '<html lang="en">' in page
    for control in re.findall(r'<(?:input|textarea|select) id="(\w+)"', page):
        assert re.search(rf'<label>[^<]*<\w+ id="{control}"', page), f"{control} has no label"


def test_page_sends_only_fields_that_the_api_knows(client: TestClient) -> None:
    page = client.get("/").text
    (literal,) = re.findall(r"function body\(\) \{.*?return \{(.*?)\n  \};", page, re.DOTALL)
    fields = re.findall(r"^\s+(\w+):", literal, re.MULTILINE)
    assert len(fields) == 7
    assert set(fields) <= set(ImagesBody.model_fields)


def test_models_tell_sizes_that_are_allowed(client: TestClient) -> None:
    (model,) = client.get("/v1/models").json()["data"]
    assert client.get("/v1/models/tiny").json() == model
    assert model["sizes"][0] == model["size"] == "32x32"
    assert len(set(model["sizes"])) == len(model["sizes"]) >= 3
    assert model["sampler"] in model["samplers"]
    for size in model["sizes"]:
        body = {"prompt": "a fox", "size": size, "steps": 1, "n": 1}
        assert client.post("/v1/images/generations", json=body).json()["size"] == size


def test_schema_is_published(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    content = paths["/v1/images/generations"]["post"]["requestBody"]["content"]
    assert "guidance_scale" in content["application/json"]["schema"]["properties"]


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
