"""`musiva serve`: what it refuses before it loads anything, and what it tells its server."""

from __future__ import annotations

from pathlib import Path

import pytest

from musiva.server import AppConfig
from tests.cli.conftest import Musiva


def test_bad_options_are_told_before_anything_is_loaded(musiva: Musiva, tmp_path: Path) -> None:
    for arguments, said in (
        (("--api-key-file", tmp_path / "none"), "api-key-file: got "),
        (("--cors-origin", "example.org"), "cors-origin: got 'example.org'"),
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
