"""POST /v1/images/generations: what it gives for what is allowed."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from musiva.core.provenance import read_parameters
from musiva.engine import Engine, load_pipeline
from musiva.server import create_app
from musiva.server.bodies import WORDS
from musiva.telemetry import Metrics

URL = "/v1/images/generations"


def ask(client: TestClient, **body: object) -> dict[str, Any]:
    response = client.post(URL, json={"prompt": "a red fox", **body})
    assert response.status_code == 200, response.text
    return response.json()


def made(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """Its pictures, but for how long they took."""
    return [{**entry, "seconds": None} for entry in answer["data"]]


def picture(entry: dict[str, Any]) -> Image.Image:
    image = Image.open(io.BytesIO(base64.b64decode(entry["b64_json"])))
    image.load()
    return image


def test_pictures_are_those_of_generate(client: TestClient, served: Any) -> None:
    answer = ask(
        client,
        n=2,
        size="48x32",
        seed=7,
        steps=3,
        guidance_scale=2.5,
        negative_prompt="rain",
        sampler="euler",
        spacing="karras",
        shift=2.0,
    )
    expected = served.engine.generate(
        "a red fox",
        num_images=2,
        size=(48, 32),
        seed=7,
        steps=3,
        guidance=2.5,
        negative_prompt="rain",
        sampler="euler",
        spacing="karras",
        shift=2.0,
    )
    assert [entry["seed"] for entry in answer["data"]] == [7, 8]
    for entry, image in zip(answer["data"], expected, strict=True):
        assert picture(entry).size == (48, 32)
        np.testing.assert_array_equal(np.asarray(picture(entry)), np.asarray(image))
    assert (answer["size"], answer["steps"], answer["guidance_scale"]) == ("48x32", 3, 2.5)
    assert answer["model"] == "tiny"
    assert answer["timing"]["seconds"] > 0


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_what_each_picture_carries_reproduces_it(client: TestClient, output_format: str) -> None:
    first = ask(client, n=2, seed=11, shift=1.25, output_format=output_format)["data"]
    for i, entry in enumerate(first):
        body = read_parameters(base64.b64decode(entry["b64_json"]))
        assert body["seed"] == 11 + i
        again = client.post(URL, json={**body, "output_format": output_format})
        assert again.status_code == 200, again.text
        assert made(again.json()) == [{**entry, "seconds": None}]


def test_defaults_are_the_models_and_seeds_differ(client: TestClient) -> None:
    first, second = ask(client), ask(client, size="auto", n=None, seed=None)
    for answer in (first, second):
        assert (answer["size"], answer["steps"], answer["guidance_scale"]) == ("32x32", 4, 3.0)
        assert answer["output_format"] == "png"
        assert len(answer["data"]) == 1
        assert answer["warnings"] == []
    assert first["data"][0]["seed"] != second["data"][0]["seed"]


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_formats(client: TestClient, output_format: str) -> None:
    answer = ask(client, output_format=output_format, seed=1)
    assert answer["output_format"] == output_format
    assert picture(answer["data"][0]).format == output_format.upper()


@pytest.mark.parametrize("output_format", ["jpeg", "webp"])
def test_compression_makes_files_smaller(client: TestClient, output_format: str) -> None:
    sizes = [
        len(
            ask(client, output_format=output_format, output_compression=q, seed=1)["data"][0][
                "b64_json"
            ]
        )
        for q in (0, 50, 100)
    ]
    assert sizes == sorted(set(sizes))


def test_url_serves_the_same_file(client: TestClient) -> None:
    inline = ask(client, seed=3)["data"][0]
    entry = ask(client, seed=3, response_format="url")["data"][0]
    assert "b64_json" not in entry
    assert entry["url"].startswith("http://testserver/files/")
    assert entry["url"].endswith(".png")
    response = client.get(entry["url"])
    assert response.headers["content-type"] == "image/png"
    assert response.content == base64.b64decode(inline["b64_json"])


@pytest.mark.parametrize("quality", [*WORDS, 100])
def test_every_word_for_quality_is_the_dense_run(client: TestClient, quality: object) -> None:
    answer = ask(client, quality=quality, seed=5)
    assert made(answer) == made(ask(client, seed=5))
    assert answer["quality"] == "high"
    assert bool(answer["warnings"]) == (quality in ("low", "medium"))


def test_fields_without_effect_are_named_in_the_answer(client: TestClient) -> None:
    answer = ask(
        client,
        style="vivid",
        moderation="low",
        background="opaque",
        complexity="high",
        user="someone",
        safety_identifier="someone",
        stream=False,
        partial_images=0,
        progress=False,
        model="tiny",
    )
    named = [warning.split(":")[0] for warning in answer["warnings"]]
    assert named == ["style", "moderation", "complexity"]
    assert answer["background"] == "opaque"


def test_usage_counts_the_tokens_that_were_computed(client: TestClient, served: Any) -> None:
    text = served.engine.pipeline.text
    answer = ask(client, n=3, size="48x32", negative_prompt="rain and snow")
    given = len(text.tokenize("a red fox")) + len(text.tokenize("rain and snow"))
    made = 3 * served.engine.pipeline.num_tokens((48, 32))
    assert answer["usage"] == {
        "input_tokens": given,
        "input_tokens_details": {"text_tokens": given, "image_tokens": 0},
        "output_tokens": made,
        "output_tokens_details": {"text_tokens": 0, "image_tokens": made},
        "total_tokens": given + made,
    }
    alone = ask(client, size="48x32", guidance_scale=1)["usage"]
    assert alone["input_tokens"] == len(text.tokenize("a red fox"))


def test_a_negative_prompt_without_guidance_has_no_effect_and_says_so(
    client: TestClient, served: Any
) -> None:
    answer = ask(client, guidance_scale=1, negative_prompt="rain")
    (warning,) = answer["warnings"]
    assert warning.startswith("negative_prompt: has no effect")
    given = len(served.engine.pipeline.text.tokenize("a red fox"))
    assert answer["usage"]["input_tokens"] == given
    assert ask(client, guidance_scale=2, negative_prompt="rain")["warnings"] == []


def test_extreme_seeds_give_pictures(client: TestClient) -> None:
    largest = 2**63 - 1
    data = ask(client, seed=largest - 1, n=2, steps=1)["data"]
    assert [entry["seed"] for entry in data] == [largest - 1, largest]
    over = client.post(URL, json={"prompt": "a red fox", "seed": largest, "n": 2})
    assert over.json()["error"]["param"] == "seed"


def test_a_prompt_too_long_for_exif_is_refused_before_it_is_drawn(client: TestClient) -> None:
    long = "fox" + "\u2003" * 20_000
    body = {"prompt": long, "steps": 1, "output_format": "jpeg"}
    response = client.post(URL, json=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "prompt"
    assert client.post(URL, json={**body, "output_format": "png"}).status_code == 200


def test_qualities_of_a_calibrated_model(calibrated_model: Path) -> None:
    with (
        Engine(load_pipeline(calibrated_model, device="cpu")) as engine,
        TestClient(create_app(engine, metrics=Metrics())) as client,
    ):
        (model,) = client.get("/v1/models").json()["data"]
        assert model["calibrated"]
        body = {"size": "48x32", "steps": 20, "seed": 4}
        dense = ask(client, **body)
        assert (dense["quality"], dense["policy"], dense["num_evaluations"]) == (
            "high",
            "never",
            20,
        )
        assert dense["data"][0]["computed"] == 20
        least = ask(client, quality=1, **body)
        assert least["quality"] == "low"
        assert least["policy"].startswith("adaptive:")
        assert least["data"][0]["computed"] < 20
        assert made(ask(client, min_quality=1, **body)) == made(least)
        for word, quality in (("low", 60), ("medium", 80)):
            answer = ask(client, quality=word, **body)
            assert (answer["quality"], answer["warnings"]) == (word, [])
            assert made(answer) == made(ask(client, quality=quality, **body))
        refused = client.post(
            URL, json={"prompt": "a fox", "quality": 80, "min_quality": 60, **body}
        )
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "min_quality"


def test_a_floor_without_calibration_is_refused(client: TestClient) -> None:
    response = client.post(URL, json={"prompt": "a fox", "min_quality": 60})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "min_quality"
    assert made(ask(client, min_quality=100, seed=1)) == made(ask(client, seed=1))
