"""Who may ask and how often: the key, pages from elsewhere, places."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from musiva.core.errors import InvalidInput, Overloaded
from musiva.engine import Engine, Pipeline
from musiva.server import AppConfig, create_app
from musiva.server.errors import ApiError
from musiva.server.limits import Places
from musiva.telemetry import Metrics

URL = "/v1/images/generations"
KEY = "sk-secret"
BODY = {"prompt": "a fox", "steps": 1}


def client_of(engine: Engine, **options: Any) -> TestClient:
    return TestClient(create_app(engine, metrics=Metrics(), config=AppConfig(**options)))


@pytest.fixture(scope="module")
def engine(pipeline: Pipeline) -> Any:
    with Engine(pipeline) as engine:
        yield engine


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer wrong", f"Basic {KEY}", KEY, f"Bearer {KEY}x"]
)
def test_without_the_key_nothing_under_v1_answers(engine: Engine, header: str | None) -> None:
    client = client_of(engine, api_key=KEY)
    headers = {} if header is None else {"Authorization": header}
    for response in (
        client.post(URL, json=BODY, headers=headers),
        client.get("/v1/models", headers=headers),
        client.get("/v1/nope", headers=headers),
    ):
        error = response.json()["error"]
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        assert (error["code"], error["type"]) == ("invalid_api_key", "invalid_request_error")
        assert KEY not in response.text


def test_with_the_key_everything_answers_and_the_rest_needs_none(engine: Engine) -> None:
    with client_of(engine, api_key=KEY) as client:
        for scheme in ("Bearer", "bearer"):
            headers = {"Authorization": f"{scheme} {KEY}"}
            assert client.post(URL, json=BODY, headers=headers).status_code == 200
        for path in ("/", "/healthz", "/metrics", "/openapi.json"):
            assert client.get(path).status_code == 200, path
    assert KEY not in repr(AppConfig(api_key=KEY))


@pytest.mark.parametrize("key", ["", "two words", "schlüssel", "x" * 513, "a\n"])
def test_keys_that_no_header_can_carry(key: str) -> None:
    with pytest.raises(InvalidInput, match=r"api_key: got .*hidden"):
        AppConfig(api_key=key)


def test_pages_from_elsewhere_are_off_by_default(engine: Engine) -> None:
    headers = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}
    client = client_of(engine)
    assert "access-control-allow-origin" not in client.get("/v1/models", headers=headers).headers
    assert client.options(URL, headers=headers).status_code == 405


def test_pages_from_a_named_origin_may_ask(engine: Engine) -> None:
    client = client_of(engine, cors_origins=("https://example.org",), api_key=KEY)
    asked = {
        "Origin": "https://example.org",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type",
    }
    allowed = client.options(URL, headers=asked)
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == "https://example.org"
    assert "authorization" in allowed.headers["access-control-allow-headers"].lower()
    # The browser shows the page an error only with the header.
    refused = client.post(URL, json=BODY, headers={"Origin": "https://example.org"})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "https://example.org"
    other = client.options(URL, headers={**asked, "Origin": "https://example.com"})
    assert "access-control-allow-origin" not in other.headers


def test_pages_from_elsewhere_see_errors_that_nobody_foresaw(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("musiva.server.drawing.encode_picture", None)
    with client_of(engine, cors_origins=("https://example.org",)) as client:
        failed = client.post(URL, json=BODY, headers={"Origin": "https://example.org"})
    assert failed.status_code == 500
    assert failed.headers["access-control-allow-origin"] == "https://example.org"
    assert "x-request-id" in failed.headers["access-control-expose-headers"].lower()


@pytest.mark.parametrize("origin", ["example.org", "https://example.org/", "ftp://x", "null", ""])
def test_origins_that_are_none(origin: str) -> None:
    with pytest.raises(InvalidInput, match=r"^cors_origin: got "):
        AppConfig(cors_origins=(origin,))


@pytest.mark.parametrize("most", [0, -1])
def test_no_places_at_all(most: int) -> None:
    with pytest.raises(InvalidInput, match=r"^max_waiting: got "):
        AppConfig(max_waiting=most)


def test_places_say_when_to_come_back() -> None:
    now = 0.0
    places = Places(2, clock=lambda: now)

    def refused() -> str:
        with pytest.raises(ApiError) as caught, places.take(), places.take(), places.take():
            pass
        assert caught.value.status == 429
        assert places.num_taken == 0
        return caught.value.headers["Retry-After"]

    assert refused() == "5"
    for _ in range(20):
        now += 3.0
        with places.take():
            pass
    assert refused() == "3"
    now += 1000
    assert refused() == "60"


def test_a_full_engine_is_told_like_a_full_server() -> None:
    places = Places(2)
    # A refusal frees no place: the second one is told the same.
    for _ in range(2):
        with pytest.raises(ApiError, match="3 wait; try again in 5 s") as caught, places.take():
            raise Overloaded("3 wait")
        assert caught.value.status == 429
        assert places.num_taken == 0
