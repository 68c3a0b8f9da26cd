"""Several who share a server: files of them, their keys, their shares, and what they see."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from musiva.core.errors import InvalidInput
from musiva.engine import Engine, Pipeline
from musiva.server import AppConfig, Tenant, create_app, read_tenants
from musiva.server.tenants import Access
from musiva.telemetry import Metrics
from tests.server.live import wait_until
from tests.server.priced import priced

URL, JOBS = "/v1/images/generations", "/v1/jobs"
BODY = {"prompt": "a fox", "steps": 1, "size": "16x16"}
KEYED = (Tenant(name="ants", share=2, key="sk-ants"), Tenant(name="bees", key="sk-bees"))


def file_of(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "tenants.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_a_file_of_tenants(tmp_path: Path) -> None:
    path = file_of(tmp_path, {"ants": {"share": 2}, "be.es-2": {"share": 0.5, "key": "sk-bees"}})
    ants, bees = read_tenants(path)
    assert (ants.name, ants.share, ants.key) == ("ants", 2, None)
    assert (bees.name, bees.share, bees.key) == ("be.es-2", 0.5, "sk-bees")
    assert "sk-bees" not in repr(bees)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "tenants: got "),
        ("{", "it is no JSON"),
        ("[" * 100_000, "it is no JSON"),
        ([], "a JSON object such as"),
        ({}, "a JSON object such as"),
        ("null", "a JSON object such as"),
        ({"ants": 2}, "tenants.ants: got 'int'; allowed: an object with \"share\""),
        ({"ants": {}}, "tenants.ants.share: got None; allowed: a number above 0"),
        ({"ants": {"share": 0}}, "tenants.ants.share: got 0; allowed: a number above 0"),
        ({"ants": {"share": -1}}, "tenants.ants.share: got -1"),
        ({"ants": {"share": "2"}}, "tenants.ants.share: got '2'"),
        ({"ants": {"share": True}}, "tenants.ants.share: got True"),
        ('{"ants": {"share": 1e999}}', "tenants.ants.share: got inf"),
        ('{"ants": {"share": NaN}}', "tenants.ants.share: got nan"),
        ('{"ants": {"share": 1' + "0" * 400 + "}}", "tenants.ants.share: got 1000"),
        ({"ants": {"share": 1, "weight": 2}}, "tenants.ants: got 'weight'; allowed: share and key"),
        ({"ants": {"share": 1, "key": ""}}, "tenants.ants.key: got '(hidden)'"),
        ({"ants": {"share": 1, "key": "my secret"}}, "tenants.ants.key: got '(hidden)'"),
        ({"ants": {"share": 1, "key": 7}}, "tenants.ants.key: got '(hidden)'"),
        ({"": {"share": 1}}, "tenants: got ''; allowed: a name of up to 64 letters"),
        ({"an ant": {"share": 1}}, "tenants: got 'an ant'"),
        ({"x" * 65: {"share": 1}}, "a name of up to 64 letters"),
        ('{"ants": {"share": 1}, "ants": {"share": 2}}', "tenants: got 'ants'; allowed: names"),
        ('{"ants": {"share": 1, "share": 2}}', "tenants: got 'share'; allowed: names that differ"),
    ],
)
def test_files_that_are_none(tmp_path: Path, content: object, told: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_tenants(file_of(tmp_path, content))
    assert told in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"tenants: got .*No such file"):
        read_tenants(tmp_path / "none")
    path = tmp_path / "binary"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInput, match="it is no JSON"):
        read_tenants(path)


@pytest.mark.parametrize(
    ("api_key", "tenants", "told"),
    [
        (None, [("ants", "k"), ("bees", "k")], "tenants.ants.key: got '(hidden)'; allowed: a key"),
        ("k", [("ants", "k")], "tenants.ants.key: got '(hidden)'; allowed: a key that no other"),
        (None, [("ants", "k"), ("bees", None)], "tenants.bees.key: got None; allowed: a key"),
        (None, [("ants", "k"), ("default", None)], "tenants.default.key: got None"),
        (None, [("ants", None), ("ants", None)], "tenants: got 'ants'; allowed: names that differ"),
    ],
)
def test_keys_that_name_nobody(
    api_key: str | None, tenants: list[tuple[str, str | None]], told: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        AppConfig(api_key=api_key, tenants=tuple(Tenant(name=n, key=k) for n, k in tenants))
    assert str(caught.value).startswith(told)


def test_what_keys_open() -> None:
    nobody = Access(None, ())
    assert nobody.names == ("default",)
    assert not nobody.asks_for_a_key
    plain = Access("sk", (Tenant(name="ants", share=3),))
    assert plain.shares == {"ants": 3.0, "default": 1.0}
    assert (plain.holder("sk"), plain.holder("s"), plain.names_tenants) == ("default", None, False)
    assert plain.tenant("ants", "default") == "ants"
    keyed = Access("sk", KEYED)
    assert keyed.shares == {"ants": 2.0, "bees": 1.0, "default": 1.0}
    assert [keyed.holder(key) for key in ("sk", "sk-ants", "sk-bees", "sk-wasps", "\xe4")] == [
        *("default", "ants", "bees"),
        *(None, None),
    ]
    assert Access(None, KEYED).names == ("ants", "bees")
    assert keyed.tenant(None, "bees") == keyed.tenant("bees", "bees") == "bees"
    for asked in ("ants", "wasps"):
        with pytest.raises(InvalidInput, match=r"tenant: got .*bees, whose key this is, or absent"):
            keyed.tenant(asked, "bees")


@pytest.fixture(scope="module")
def keyed(pipeline: Pipeline) -> Iterator[TestClient]:
    config = AppConfig(api_key="sk-plain", tenants=KEYED)
    with (
        Engine(pipeline) as engine,
        TestClient(create_app(engine, metrics=Metrics(), config=config)) as client,
    ):
        yield client


def test_the_key_says_who_asks(keyed: TestClient) -> None:
    for key, name in (("sk-ants", "ants"), ("sk-bees", "bees"), ("sk-plain", "default")):
        for asked in (None, name):
            body = {**BODY, "tenant": asked}
            job = keyed.post(JOBS, json=body, headers=bearer(key)).json()
            assert job["tenant"] == name
    for body in ({**BODY, "tenant": "ants"}, {**BODY, "tenant": "wasps"}):
        for path in (URL, JOBS, "/v1/estimates"):
            response = keyed.post(path, json=body, headers=bearer("sk-bees"))
            error = response.json()["error"]
            assert (response.status_code, error["param"]) == (400, "tenant")
            assert "allowed: bees, whose key this is, or absent" in error["message"]
    for headers in ({}, bearer("sk-wasps"), bearer("ants")):
        assert keyed.post(JOBS, json=BODY, headers=headers).status_code == 401
    # The document and the figures need none, as ever.
    assert "securitySchemes" in keyed.get("/openapi.json").json()["components"]
    assert keyed.get("/metrics").status_code == 200


def test_tenants_see_their_own_jobs_and_keys(keyed: TestClient) -> None:
    ants = {**bearer("sk-ants"), "Idempotency-Key": "once"}
    bees = {**bearer("sk-bees"), "Idempotency-Key": "once"}
    mine = keyed.post(JOBS, json=BODY, headers=ants).json()
    # The same key of another tenant is another key.
    theirs = keyed.post(JOBS, json={**BODY, "seed": 1}, headers=bees)
    assert theirs.status_code == 202
    assert keyed.post(JOBS, json=BODY, headers=ants).headers["idempotent-replayed"] == "true"
    for end in ("", "/result", "/events", "/cancel"):
        ask = keyed.post if end == "/cancel" else keyed.get
        assert ask(f"{JOBS}/{mine['id']}{end}", headers=bees).status_code == 404
    assert keyed.get(f"{JOBS}/{mine['id']}", headers=ants).status_code == 200
    listed = keyed.get(JOBS, headers=bees).json()["data"]
    assert theirs.json()["id"] in {job["id"] for job in listed}
    assert {job["tenant"] for job in listed} == {"bees"}
    after = keyed.get(JOBS, params={"after": mine["id"]}, headers=bees)
    assert after.status_code == 400


def test_without_keys_everybody_may_be_anybody(pipeline: Pipeline) -> None:
    config = AppConfig(tenants=(Tenant(name="ants"), Tenant(name="bees")))
    with (
        Engine(pipeline) as engine,
        TestClient(create_app(engine, metrics=Metrics(), config=config)) as client,
    ):
        jobs = [client.post(JOBS, json={**BODY, "tenant": name}) for name in ("ants", "bees", None)]
        assert [job.json()["tenant"] for job in jobs] == ["ants", "bees", "default"]
        assert len(client.get(JOBS).json()["data"]) == 3
        error = client.post(JOBS, json={**BODY, "tenant": "wasps"}).json()["error"]
        assert error["message"] == "tenant: got 'wasps'; allowed: ants, bees, default"
        assert error["param"] == "tenant"


def test_who_has_had_its_share_is_told_to_come_back(pipeline: Pipeline) -> None:
    """Where all ask for more than there is: with weights 1 to 3 nobody keeps the first from its
    quarter.
    """
    config = AppConfig(tenants=(Tenant(name="ants"), Tenant(name="bees", share=3)))
    body = {"prompt": "a fox", "steps": 1000, "size": "16x16"}

    def ask(client: TestClient, tenant: str) -> Any:
        return client.post(JOBS, json={**body, "tenant": tenant})

    with (
        Engine(pipeline, priced(1e6, shares=config.access.shares)) as engine,
        TestClient(create_app(engine, metrics=Metrics(), config=config)) as client,
    ):
        assert ask(client, "bees").status_code == 202
        jobs = [ask(client, "ants") for _ in range(15)]
        assert {job.status_code for job in jobs} == {202}
        refused = ask(client, "ants")
        error = refused.json()["error"]
        assert (refused.status_code, error["code"]) == (429, "rate_limit_exceeded")
        assert "tenant 'ants' has had its share of 25% of the device's time" in error["message"]
        assert error["retry_seconds"] > 0
        assert int(refused.headers["retry-after"]) >= 1
        assert 'musiva_refused_total{reason="share"} 1.0' in client.get("/metrics").text
        for job in client.get(JOBS).json()["data"]:
            client.post(f"{JOBS}/{job['id']}/cancel")
        wait_until(lambda: engine.num_waiting == 0)
