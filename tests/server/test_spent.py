"""What answers and streams tell of the compute of a picture."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from tests.server.live import asked_until

URL = "/v1/images/generations"
BODY = {"prompt": "a red fox", "size": "48x32", "steps": 6, "seed": 1}
# 2 x 3 tiles, of which three are computed at four of six evaluations.
RAS = "ras:warmup=2,share=0.5,interval=9,max_age=9"


def streamed(client: TestClient, **body: object) -> list[dict[str, Any]]:
    asked = {**BODY, "stream": True, "progress": True, "partial_images": 5, **body}
    response = client.post(URL, json=asked)
    assert response.status_code == 200, response.text
    lines = [line for line in response.text.split("\n") if line.startswith("data: ")]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def of(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["type"].endswith(kind)]


@pytest.mark.parametrize(
    ("policy", "computed", "cost"),
    [
        ("never", 6, 6.0),
        # Evaluations 1 to 3 and 5; of these the second and the fourth borrow a branch.
        ("interval:interval=2,guidance=2", 4, 3.0),
        ("first_block:threshold=1e9,warmup=1,max_held=2", 2, 2.0),
    ],
)
def test_cost_and_share(client: TestClient, policy: str, computed: int, cost: float) -> None:
    answer = client.post(URL, json={**BODY, "n": 2, "policy": policy}).json()
    (completed,) = of(streamed(client, policy=policy), "completed")
    for told in (*answer["data"], completed):
        assert (told["computed"], told["cost"]) == (computed, cost)
        assert told["share"] == round(cost / answer["num_evaluations"], 4)
        assert (told["tiles"], told["tile_counts"]) == (None, None)
    assert answer["policy"] == completed["policy"] == policy


@pytest.mark.parametrize("response_format", ["b64_json", "url"])
def test_a_policy_with_tiles(client: TestClient, response_format: str) -> None:
    asked = {**BODY, "policy": RAS, "response_format": response_format}
    (picture,) = client.post(URL, json=asked).json()["data"]
    assert (picture["computed"], picture["cost"], picture["share"]) == (2, 4.0, 0.6667)
    assert picture["tiles"] == [2, 3]
    assert len(picture["tile_counts"]) == 6
    assert sum(picture["tile_counts"]) == 2 * 6 + 4 * 3
    assert min(picture["tile_counts"]) >= 2


def test_partial_images_and_progress_tell_which_tiles_were_active(client: TestClient) -> None:
    events = asked_until(
        lambda: streamed(client, policy=RAS), lambda event: of([event], "partial_image")
    )
    (completed,) = of(events, "completed")
    progress = [event for event in of(events, "progress") if event["evaluation"]]
    partial = of(events, "partial_image")
    for event in (*partial, *progress):
        assert event["tiles"] == [2, 3]
        active = event["active_tiles"]
        assert set(active) <= {0, 1}
        assert sum(active) == (6 if event["evaluation"] <= 2 else 3)
    assert all(event["computed"] is True for event in partial)
    by_evaluation = {event["evaluation"]: event["active_tiles"] for event in progress}
    for event in partial:
        # A reader may miss progress, but never gets another evaluation's tiles.
        shown = by_evaluation.get(event["evaluation"], event["active_tiles"])
        assert event["active_tiles"] == shown
    if len(by_evaluation) == 6:
        assert np.sum(list(by_evaluation.values()), axis=0).tolist() == completed["tile_counts"]
    costs = {event["evaluation"]: event["cost"] for event in progress}
    for evaluation, cost in costs.items():
        assert cost == min(evaluation, 2) + 0.5 * max(evaluation - 2, 0)
    first = of(events, "progress")[0]
    assert (first["cost"], first["share"], first["active_tiles"]) == (0, 0, None)


def test_partial_images_without_tiles_tell_whether_the_model_ran(client: TestClient) -> None:
    ran = {}
    for _ in range(20):
        for event in of(streamed(client, policy="refine:interval=4,warmup=1"), "partial_image"):
            assert (sum(event["active_tiles"]) > 0) == event["computed"]
        for event in of(streamed(client, policy="interval:interval=100"), "partial_image"):
            assert (event["tiles"], event["active_tiles"]) == (None, None)
            ran[event["evaluation"]] = event["computed"]
        if len(ran) > 1:
            break
    assert all(computed == (evaluation <= 3) for evaluation, computed in ran.items())
