"""Packages come as they were pinned, or not at all."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest

from musiva.core.errors import Unavailable
from musiva.perf.npm import Package, fetch

CONTENT = b"an archive"
SHA512 = base64.b64encode(hashlib.sha512(CONTENT).digest()).decode()
PINNED = Package("@some/thing", "1.2.3", f"sha512-{SHA512}")


def put_npm(directory: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An `npm` of our own, first on the path."""
    directory.mkdir()
    npm = directory / "npm"
    npm.write_text(f"#!/bin/sh\n{script}\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")


def test_without_npm_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Unavailable, match=r"npm is needed.*Node.js.*some-thing-1\.2\.3\.tgz"):
        fetch(PINNED, tmp_path)


def test_other_bytes_are_refused(tmp_path: Path) -> None:
    (tmp_path / PINNED.archive).write_bytes(b"something else")
    with pytest.raises(Unavailable, match=r"is not @some/thing@1\.2\.3: remove it"):
        fetch(PINNED, tmp_path)


def test_a_package_is_packed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, data = tmp_path / "calls", tmp_path / "data"
    script = f'echo "$@" >> {log}; printf "%s" "{CONTENT.decode()}" > some-thing-1.2.3.tgz'
    put_npm(tmp_path / "bin", script, monkeypatch)
    assert fetch(PINNED, data).read_bytes() == CONTENT
    assert fetch(PINNED, data) == data / "some-thing-1.2.3.tgz"
    assert log.read_text() == "pack @some/thing@1.2.3 --silent\n"


def test_what_npm_says_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_npm(tmp_path / "bin", "echo no such package >&2; exit 1", monkeypatch)
    with pytest.raises(Unavailable, match=r"npm pack .* failed: no such package"):
        fetch(PINNED, tmp_path / "data")
