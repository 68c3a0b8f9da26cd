"""The key of a server: out of a file or the environment, and told by where it came from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from musiva.cli.key import read_key
from musiva.core.errors import InvalidInput
from musiva.engine import Engine
from musiva.server import AppConfig
from musiva.telemetry import Metrics
from tests.cli.conftest import Musiva
from tests.server.live import live_server


@pytest.mark.parametrize("content", ["sk-1", "sk-1\n", " sk-1 \r\n\n"])
def test_a_key_is_the_only_line_of_its_file(tmp_path: Path, content: str) -> None:
    path = tmp_path / "key"
    path.write_bytes(content.encode())
    assert read_key(path) == "sk-1"


@pytest.mark.parametrize(
    "content",
    [b"", b"\n\n", b"sk-secret\nsk-other\n", "schlüssel".encode(), b"two secrets", b"s" * 513],
)
def test_files_that_hold_no_key(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match="api-key-file: got ") as caught:
        read_key(path)
    assert "secret" not in str(caught.value)


@pytest.fixture
def locked(tiny_engine: Engine) -> Iterator[str]:
    """The address of a server that asks for the key "sk-right"."""
    config = AppConfig(api_key="sk-right")
    with live_server(tiny_engine, Metrics(), config) as (host, port):
        yield f"http://{host}:{port}"


def test_generate_sends_the_key_of_the_file_or_else_of_the_environment(
    musiva: Musiva, locked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, out = tmp_path / "key", tmp_path / "out"
    ask = ("generate", "a fox", "--steps", 1, "--server", locked, "--out", out)
    monkeypatch.setenv("MUSIVA_API_KEY", "sk-right")
    result = musiva(*ask)
    assert result.code == 0, result.err
    monkeypatch.setenv("MUSIVA_API_KEY", "sk-wrong")
    file.write_text("sk-right\n")
    result = musiva(*ask, "--api-key-file", file)
    assert result.code == 0, result.err
    assert len(list(out.iterdir())) == 2


def test_a_key_that_is_refused_is_told_by_where_it_came_from(
    musiva: Musiva, locked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, out = tmp_path / "key", tmp_path / "out"
    file.write_text("sk-file")
    ask = ("generate", "a fox", "a hen", "--server", locked, "--out", out)
    allowed = f"allowed: a key that {locked}/v1/images/generations takes: "
    monkeypatch.delenv("MUSIVA_API_KEY", raising=False)
    none = musiva(*ask)
    monkeypatch.setenv("MUSIVA_API_KEY", "sk-environment")
    environment = musiva(*ask)
    from_file = musiva(*ask, "--api-key-file", file)
    missing = musiva(*ask, "--api-key-file", tmp_path / "nothing")
    assert [r.code for r in (none, environment, from_file, missing)] == [2, 2, 2, 2]
    start = "musiva: error: "
    assert none.err.startswith(f"{start}api-key-file: got None; {allowed}no API key; ")
    assert none.err.endswith("; MUSIVA_API_KEY may hold it too\n")
    wrong = f"{allowed}incorrect API key\n"
    assert environment.err == f"{start}MUSIVA_API_KEY: got '(hidden)'; {wrong}"
    assert from_file.err == f"{start}api-key-file: got {str(file)!r}; {wrong}"
    assert "No such file" in missing.err
    assert not out.exists()


def test_a_key_file_is_for_a_server(musiva: Musiva, tmp_path: Path) -> None:
    result = musiva("generate", "a fox", "--api-key-file", tmp_path / "key", "--model", "nosuch")
    assert result.code == 2
    assert result.err.startswith("musiva: error: api-key-file: got ")
    assert "allowed: nothing without --server" in result.err
