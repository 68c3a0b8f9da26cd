"""Policies with gates over HTTP: what answers, streams and /metrics tell of them."""

from __future__ import annotations

import json

from fastapi.testclient import TestClient

BODY = {"prompt": "a red fox", "size": "48x32", "steps": 6, "seed": 1, "n": 2}


def figure(client: TestClient, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    (line,) = [line for line in lines if line.startswith(f"{name} ")]
    return float(line.split()[-1])


def test_an_answer_tells_what_was_computed_and_metrics_what_was_held(client: TestClient) -> None:
    asked = {**BODY, "policy": "first_block:threshold=1e9,warmup=1,max_held=2"}
    answer = client.post("/v1/images/generations", json=asked).json()
    assert [picture["computed"] for picture in answer["data"]] == [2, 2]
    assert answer["num_evaluations"] == 6
    assert answer["warnings"] == []
    assert figure(client, 'musiva_evaluations_total{action="held"}') == 8
    assert figure(client, "musiva_store_budget_bytes") == 256 << 20
    assert figure(client, "musiva_store_used_bytes") == 0
    assert figure(client, "musiva_store_written_bytes_total") > 0
    assert figure(client, "musiva_store_hits_total") > figure(client, "musiva_store_misses_total")


def test_a_policy_that_skipped_nothing_is_told_once(client: TestClient) -> None:
    before = figure(client, "musiva_policies_without_effect_total")
    asked = {**BODY, "policy": "tea_cache:threshold=0"}
    told = "policy: 'tea_cache:threshold=0' had no effect; it found nothing to skip"
    answer = client.post("/v1/images/generations", json=asked).json()
    assert answer["warnings"] == [told]
    assert [picture["computed"] for picture in answer["data"]] == [6, 6]
    assert figure(client, "musiva_policies_without_effect_total") == before + 2
    with client.stream("POST", "/v1/images/generations", json={**asked, "stream": True}) as events:
        lines = [line[6:] for line in events.iter_lines() if line.startswith("data: {")]
    done = [event for event in map(json.loads, lines) if event["type"].endswith("completed")]
    assert [event["warnings"] for event in done] == [[told], [told]]


def test_the_model_lists_them(client: TestClient) -> None:
    (model,) = client.get("/v1/models").json()["data"]
    assert {"first_block", "tea_cache"} <= set(model["policies"])
