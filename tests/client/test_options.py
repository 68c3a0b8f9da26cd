"""Words of a request, there and back."""

from __future__ import annotations

import numpy as np
import pytest

from musiva.client import AsyncClient, Client, Timeout, options_from
from musiva.client.options import Options, body_of
from musiva.core.errors import InvalidInput

EVERYTHING = {
    "size": (96, 64),
    "frames": 9,
    "fps": 12.0,
    "steps": 12,
    "seed": 3,
    "guidance": 2.5,
    "num_images": 2,
    "negative_prompt": "snow",
    "sampler": "heun",
    "spacing": "karras",
    "shift": 1.5,
    "policy": "interval:interval=2",
    "min_quality": 70,
    "max_quality": 90,
    "deadline": 2.5,
    "latency": "standard",
    "priority": 3,
    "tenant": "ants",
    "quality": 100,
    "output_format": "webp",
    "output_compression": 80,
    "model": "default",
}


def test_every_option_has_its_field() -> None:
    assert set(EVERYTHING) == set(Options.__annotations__)
    body = body_of("a fox", EVERYTHING)
    assert body.pop("prompt") == "a fox"
    assert body.pop("size") == "96x64"
    assert (body.pop("guidance_scale"), body.pop("n")) == (2.5, 2)
    same = {k: v for k, v in EVERYTHING.items() if k not in ("size", "guidance", "num_images")}
    assert body == same


def test_a_seed_is_drawn_so_that_the_request_can_be_repeated() -> None:
    seeds = [body_of("a fox", {"seed": None, "steps": None})["seed"] for _ in range(4)]
    assert len(set(seeds)) == 4
    assert all(isinstance(seed, int) and 0 <= seed < 2**32 for seed in seeds)
    assert set(body_of("a fox", {"steps": None})) == {"prompt", "seed"}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"size": "96x96"}, "size: got '96x96'; allowed: (width, height)"),
        ({"size": (96,)}, "size: got (96,)"),
        ({"size": (96, 9.5)}, "size: got"),
        ({"size": (0, 96)}, "size: got"),
        ({"guidance": float("nan")}, "guidance: got nan"),
        ({"steps": np.int64(3)}, "steps: got"),
        ({"negative_prompt": "\ud800"}, "negative_prompt: got '\\ud800'"),
    ],
)
def test_what_no_body_can_say(options: dict[str, object], told: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        body_of("a fox", options)
    assert str(caught.value).startswith(told)


def test_unknown_options_and_prompts_that_are_no_text() -> None:
    with pytest.raises(TypeError, match="no such option: stepz"):
        body_of("a fox", {"stepz": 3})
    with pytest.raises(InvalidInput, match="prompt: got 5"):
        body_of(5, {})  # pyright: ignore[reportArgumentType]
    with pytest.raises(InvalidInput, match=r"^prompt: got '\\ud800'; allowed: .*Unicode text"):
        body_of("\ud800", {})


def test_a_body_read_back_is_the_same_request() -> None:
    aside = {
        *("num_images", "output_format", "output_compression"),
        *("deadline", "latency", "priority", "tenant"),
    }
    options = {k: v for k, v in EVERYTHING.items() if k not in aside}
    body = body_of("a fox", options) | {"n": 4, "response_format": "url", "user": "me"}
    assert options_from(body) == ("a fox", options)
    assert options_from({"prompt": "a fox", "size": "auto", "shift": None})[1] == {"size": None}


@pytest.mark.parametrize(
    "strange",
    [
        {"sharpness": 50},
        {"guidance": 3},
        {"size": "big"},
        {"size": [96, 96]},
        {"steps": [1]},
        {"seed": True},
        {"sampler": {}},
        {"prompt": None},
    ],
)
def test_parameters_that_are_not_understood_are_told(strange: dict[str, object]) -> None:
    with pytest.raises(InvalidInput, match="picture: got") as caught:
        options_from({"prompt": "a fox", **strange})
    assert next(iter(strange)) in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"base_url": "127.0.0.1:8400"}, "base_url: got"),
        ({"base_url": "ftp://host"}, "base_url: got"),
        ({"base_url": "http://"}, "base_url: got"),
        ({"base_url": "http://host/?a=b"}, "base_url: got"),
        ({"base_url": "http://me:secret@host"}, "base_url: got '(hidden)'"),
        ({"base_url": None}, "base_url: got None"),
        ({"retries": -1}, "retries: got -1; allowed: a whole number from 0"),
        ({"retries": 1.5}, "retries: got 1.5"),
        ({"timeout": 0}, "timeout.read: got 0"),
        ({"timeout": float("inf")}, "timeout.read: got inf"),
        ({"api_key": "se\ncret"}, "api_key: got '(hidden)'"),
        ({"api_key": "two secrets"}, "api_key: got '(hidden)'"),
        ({"api_key": ""}, "api_key: got '(hidden)'"),
        ({"api_key": 7}, "api_key: got '(hidden)'"),
    ],
)
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_what_a_client_cannot_be_made_with(
    kind: type[Client], arguments: dict[str, object], told: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        kind(**arguments)  # pyright: ignore[reportArgumentType]
    assert str(caught.value).startswith(told)
    assert "secret" not in str(caught.value)


def test_a_bare_timeout_is_for_reading() -> None:
    assert Timeout.of(3, Timeout(1, 2)) == Timeout(1, 3)
    assert Timeout.of(None, Timeout(1, 2)) == Timeout(1, 2)
    assert Timeout.of(Timeout(7, 8), Timeout(1, 2)) == Timeout(7, 8)
