"""Folders that are written whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from musiva.compiler import folder as module_of_folders
from musiva.compiler.folder import MANIFEST, Unusable, stored, written_to

FILES = {"a.txt": b"one\n", "b.bin": bytes(range(256)), "empty": b""}
# Writes a folder of its own over and over, without importing the package.
CHILD = """
import importlib.util, pathlib, sys
spec = importlib.util.spec_from_file_location("folders", sys.argv[1])
folders = importlib.util.module_from_spec(spec)
spec.loader.exec_module(folders)
for i in range(100):
    content = (sys.argv[3] * 1000).encode()
    folders.written_to(pathlib.Path(sys.argv[2]), {"a": content, "b": content})
"""


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def test_what_was_written_is_read(tmp_path: Path) -> None:
    written_to(tmp_path / "deep" / "folder", FILES)
    assert stored(tmp_path / "deep" / "folder") == FILES
    written_to(tmp_path / "deep" / "folder", {"other": b"2"})
    assert stored(tmp_path / "deep" / "folder") == {"other": b"2"}
    # Nothing else stays behind.
    assert os.listdir(tmp_path / "deep") == ["folder"]


def test_where_nothing_is_nothing_is_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        stored(tmp_path / "nowhere")
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(FileNotFoundError):
        stored(tmp_path / "file" / "below")


@pytest.mark.parametrize("name", ["a.txt", "b.bin", MANIFEST])
@pytest.mark.parametrize("change", [cut, flipped], ids=["cut", "flipped"])
def test_what_is_not_as_it_was_written_is_refused(
    tmp_path: Path, name: str, change: Callable[[bytes], bytes]
) -> None:
    written_to(tmp_path / "folder", FILES)
    path = tmp_path / "folder" / name
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(Unusable):
        stored(tmp_path / "folder")


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_what_lacks_a_file_is_refused(tmp_path: Path, name: str) -> None:
    written_to(tmp_path / "folder", FILES)
    (tmp_path / "folder" / name).unlink()
    with pytest.raises(Unusable):
        stored(tmp_path / "folder")


@pytest.mark.parametrize("manifest", [[], 1, {"a.txt": 1}, {"../a": ""}, "text", None])
def test_a_manifest_of_another_kind_is_refused(tmp_path: Path, manifest: object) -> None:
    written_to(tmp_path / "folder", FILES)
    (tmp_path / "folder" / MANIFEST).write_text(json.dumps(manifest))
    if manifest == []:
        assert stored(tmp_path / "folder") == {}
        return
    with pytest.raises(Unusable):
        stored(tmp_path / "folder")


def test_where_nothing_can_be_written_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(FileExistsError):
        written_to(tmp_path / "file" / "folder", FILES)


def test_what_fails_half_way_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written_to(tmp_path / "folder", FILES)
    write = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        if self.name == "b":
            raise OSError(28, "No space left on device")
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        written_to(tmp_path / "folder", {"a": b"1", "b": b"2"})
    assert stored(tmp_path / "folder") == FILES
    assert os.listdir(tmp_path) == ["folder"]


def test_processes_that_write_at_once_leave_one_of_theirs(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    own = str(module_of_folders.__file__)
    children = [
        subprocess.Popen([sys.executable, "-S", "-c", CHILD, own, str(target), letter])
        for letter in "xyz"
    ]
    contents = [(letter * 1000).encode() for letter in "xyz"]
    whole = [{"a": content, "b": content} for content in contents]
    seen = 0
    while any(child.poll() is None for child in children):
        try:
            assert stored(target) in whole
            seen += 1
        except (FileNotFoundError, Unusable):
            # Between two of them, or replaced while it was read.
            continue
    assert [child.returncode for child in children] == [0, 0, 0]
    assert seen
    assert stored(target) in whole
    assert os.listdir(tmp_path) == ["folder"]
