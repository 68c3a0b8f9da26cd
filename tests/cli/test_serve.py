"""`musiva serve`: what it refuses before it loads anything, and what it tells its server."""

from __future__ import annotations

from pathlib import Path

import pytest

from musiva.engine import Engine
from musiva.server import AppConfig, Tenant
from tests.cli.conftest import Musiva


def test_bad_options_are_told_before_anything_is_loaded(musiva: Musiva, tmp_path: Path) -> None:
    for arguments, said in (
        (("--api-key-file", tmp_path / "none"), "api-key-file: got "),
        (("--cors-origin", "example.org"), "cors-origin: got 'example.org'"),
        (("--scheduler", "luck"), "scheduler: got 'luck'; allowed: goodput, fifo, shortest, edf"),
        (("--patience", "0"), "patience: got '0'; allowed: a number from 0.1 to 86400"),
        (("--tenants", tmp_path / "none"), "tenants: got "),
    ):
        result = musiva("serve", "--model", "nosuch", *arguments)
        assert result.code == 2
        assert said in result.err


def test_the_server_gets_its_limits_and_its_key(
    musiva: Musiva, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given: list[AppConfig] = []
    monkeypatch.setattr(
        "musiva.server.serve", lambda *_, app_config, **__: given.append(app_config)
    )
    monkeypatch.setenv("MUSIVA_API_KEY", "sk-environment")
    path = tmp_path / "key"
    path.write_text("sk-file\n")
    origins = ("--cors-origin", "https://example.org", "--cors-origin", "*")
    assert musiva("serve", "--max-waiting", 3, *origins).code == 0
    assert musiva("serve", "--api-key-file", path).code == 0
    assert given[0] == AppConfig(
        max_waiting=3, api_key="sk-environment", cors_origins=("https://example.org", "*")
    )
    assert given[1].api_key == "sk-file"


def test_the_engine_gets_its_scheduler_and_the_server_its_tenants(
    musiva: Musiva, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given: list[tuple[AppConfig, Engine.Config]] = []
    monkeypatch.setattr(
        "musiva.server.serve",
        lambda *_, app_config, engine_config, **__: given.append((app_config, engine_config)),
    )
    path = tmp_path / "tenants.json"
    path.write_text('{"ants": {"share": 2, "key": "sk-ants"}}')
    assert musiva("serve").code == 0
    flags = ("--scheduler", "edf_admission", "--patience", "5", "--tenants", path)
    assert musiva("serve", *flags).code == 0
    (plain, usual), (shared, chosen) = given
    assert (usual.scheduler.discipline, usual.scheduler.patience) == ("goodput", 60)
    assert plain.tenants == ()
    assert (chosen.scheduler.discipline, chosen.scheduler.patience) == ("edf_admission", 5)
    assert shared.tenants == (Tenant(name="ants", share=2, key="sk-ants"),)


def test_a_key_that_two_have_is_refused_and_not_shown(
    musiva: Musiva, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "tenants.json"
    path.write_text('{"ants": {"share": 2, "key": "sk-same"}}')
    monkeypatch.setenv("MUSIVA_API_KEY", "sk-same")
    result = musiva("serve", "--tenants", path)
    assert result.code == 2
    assert "tenants.ants.key: got '(hidden)'; allowed: a key that no other has" in result.err
    assert "sk-same" not in result.err
