"""`musiva serve`: what it refuses before it loads anything, and what it tells its server."""

from __future__ import annotations

from pathlib import Path

import pytest

from musiva.cli.serve import read_key
from musiva.core.errors import InvalidInput
from musiva.server import AppConfig
from tests.cli.conftest import Musiva


@pytest.mark.parametrize("content", ["sk-1", "sk-1\n", " sk-1 \r\n\n"])
def test_a_key_is_the_only_line_of_its_file(tmp_path: Path, content: str) -> None:
    path = tmp_path / "key"
    path.write_bytes(content.encode())
    assert read_key(path) == "sk-1"


@pytest.mark.parametrize("content", [b"", b"\n\n", b"sk-secret\nsk-other\n", "schlüssel".encode()])
def test_files_that_hold_no_key(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match="api-key-file: got ") as caught:
        read_key(path)
    assert "secret" not in str(caught.value)


def test_bad_options_are_told_before_anything_is_loaded(musiva: Musiva, tmp_path: Path) -> None:
    for arguments, said in (
        (("--api-key-file", tmp_path / "none"), "api-key-file: got "),
        (("--cors-origin", "example.org"), "cors_origin: got 'example.org'"),
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
