"""The tiers of published pages: the memory of a process, and folders of a host."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest
import torch

from musiva.core.errors import Unavailable
from musiva.store.folder import LOCK, Folder
from musiva.store.memory import Memory
from musiva.store.page import Page, packed


def page(num_bytes: int, saves: float = 1.0, fill: int = 7) -> Page:
    return Page({"x": torch.full((num_bytes,), fill, dtype=torch.uint8)}, saves)


def test_memory_lets_those_go_that_cost_least_per_byte() -> None:
    memory = Memory(100)
    assert memory.put("dear", page(40), 8.0) == []
    assert memory.put("cheap", page(40), 1.0) == []
    assert memory.put("fair", page(40), 4.0) == ["cheap"]
    assert (set(memory.keys), memory.used_bytes) == ({"dear", "fair"}, 80)
    # Nobody's place is for good: what is not wanted any more goes, however dear it was.
    for i in range(60):
        memory.put(f"new{i}", page(40), 1.0)
        memory.get(f"new{i}")
    assert "dear" not in memory
    memory.check_integrity()


def test_memory_counts_how_often_a_page_is_wanted() -> None:
    memory = Memory(100)
    memory.put("wanted", page(50), 1.0)
    memory.put("other", page(50), 2.0)
    for _ in range(3):
        assert memory.get("wanted") is not None
    assert memory.put("new", page(50), 3.0) == ["other"]
    assert memory.get("other") is None


def test_memory_takes_nothing_that_is_larger_than_all_of_it() -> None:
    memory = Memory(10)
    assert memory.put("large", page(11), 9.0) == ["large"]
    assert memory.put("small", page(10), 0.0) == []
    # The least of all is the one that comes.
    assert memory.put("less", page(1), 0.0) != []
    memory.check_integrity()


def test_memory_is_never_over_its_budget() -> None:
    draw, memory = Random(3), Memory(1000)
    kept: dict[str, Page] = {}
    for i in range(3000):
        key = str(draw.randrange(80))
        what = draw.random()
        if what < 0.5:
            new = page(draw.randrange(1, 400), fill=i % 251)
            known = memory.peek(key)
            gone = memory.put(key, new, draw.random())
            if known is None:
                kept[key] = new
            for name in gone:
                kept.pop(name, None)
        elif what < 0.9:
            assert memory.get(key) is kept.get(key)
        else:
            memory.drop(key)
            kept.pop(key, None)
        memory.check_integrity()
        assert set(memory.keys) == set(kept)


def test_folders_are_shared_and_pages_are_whole(tmp_path: Path) -> None:
    ours, theirs = Folder(tmp_path, 1 << 20), Folder(tmp_path, 1 << 20)
    assert ours.put("k", page(5000, 0.5))
    back = theirs.get("k")
    assert back is not None
    assert (back.saves, int(back.tensors["x"].sum())) == (0.5, 35_000)
    # Who has it open keeps it.
    ours.drop("k")
    assert theirs.get("k") is None
    assert int(back.tensors["x"].sum()) == 35_000
    ours.close()
    theirs.close()
    assert tmp_path.is_dir()


def test_what_is_read_may_be_written_to_without_harm(tmp_path: Path) -> None:
    folder = Folder(tmp_path, 1 << 20)
    folder.put("k", page(64))
    first = folder.get("k")
    assert first is not None
    first.tensors["x"].fill_(1)
    again = folder.get("k")
    assert again is not None
    assert int(again.tensors["x"][0]) == 7
    folder.close()


@pytest.mark.parametrize("content", [b"", b"musiva.1", b"x" * 500])
def test_damaged_files_are_removed(tmp_path: Path, content: bytes) -> None:
    folder = Folder(tmp_path, 1 << 20)
    (tmp_path / "k").write_bytes(content)
    assert folder.get("k") is None
    assert (folder.damaged, "k" in folder) == (1, False)
    cut = packed(page(3000))
    (tmp_path / "k").write_bytes(cut[:-1])
    assert folder.get("k") is None
    assert folder.damaged == 2
    folder.close()


def test_a_folder_lets_those_go_that_save_least_per_byte(tmp_path: Path) -> None:
    size = len(packed(page(2000)))
    folder, other = Folder(tmp_path, 5 * size), Folder(tmp_path, 5 * size)
    saves = {"a": 0.1, "b": 5.0, "c": 0.2, "d": 4.0, "e": 3.0}
    for name, seconds in saves.items():
        # The other one's count too, as soon as anybody looks.
        (folder if name in "ab" else other).put(name, page(2000, seconds))
    assert other.put("f", page(2000, 2.0))
    folder.put("g", page(2000, 2.0))
    left = set(folder.keys)
    assert {"b", "d", "e"} <= left
    assert not {"a", "c"} & left
    assert folder.evictions + other.evictions >= 2
    total = sum(file.stat().st_size for file in tmp_path.iterdir() if file.name != LOCK)
    assert total <= 5 * size
    folder.close()
    other.close()


def test_what_was_not_wanted_for_long_goes_first(tmp_path: Path) -> None:
    size = len(packed(page(2000)))
    folder = Folder(tmp_path, 7 * size // 2)
    for name, seconds in (("old", 5.0), ("new", 3.0), ("newer", 3.0)):
        folder.put(name, page(2000, seconds))
    long_ago = time.time() - 3000
    os.utime(tmp_path / "old", (long_ago, long_ago))
    folder.put("one more", page(2000, 1.0))
    assert set(folder.keys) == {"new", "newer", "one more"}
    folder.close()


def test_a_folder_with_files_of_others_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(Unavailable, match="there are other files"):
        Folder(tmp_path, 1 << 20)
    assert [one.name for one in tmp_path.iterdir()] == ["thesis.txt"]


def test_files_of_others_never_go(tmp_path: Path) -> None:
    size = len(packed(page(2000)))
    folder = Folder(tmp_path, 3 * size)
    (tmp_path / "thesis.txt").write_bytes(bytes(2 * size))
    for i in range(8):
        folder.put(str(i), page(2000, 1.0))
    assert folder.evictions
    assert (tmp_path / "thesis.txt").stat().st_size == 2 * size
    folder.close()


def test_a_folder_tells_once_which_pages_went(tmp_path: Path) -> None:
    folder = Folder(tmp_path, 1 << 20)
    for name in ("a", "b"):
        folder.put(name, page(100))
    folder.drop("a")
    folder.drop("nobody's")
    assert (folder.went(), folder.went()) == (["a"], [])
    folder.close()


def test_pages_that_are_kept_hold_no_descriptors(tmp_path: Path) -> None:
    folder = Folder(tmp_path, 1 << 20)
    folder.put("k", page(100))
    before = len(os.listdir("/proc/self/fd"))
    kept = [folder.get("k") for _ in range(20)]
    assert all(kept)
    assert len(os.listdir("/proc/self/fd")) == before
    folder.close()


def test_a_folder_that_refuses_is_told_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "pages"
    folder = Folder(path, 1 << 20)
    (path / LOCK).unlink()
    path.rmdir()
    for name in ("a", "b"):
        assert not folder.put(name, page(100))
    assert (folder.failures, caplog.text.count("cannot be kept")) == (2, 1)
    assert folder.get("a") is None
    folder.close()


def test_a_full_disk_keeps_no_page_and_hurts_nobody(tmp_path: Path) -> None:
    """A process whose files may not become large stands for a disk that is full."""
    code = (
        "import resource, signal, sys, torch\n"
        "from pathlib import Path\n"
        "from musiva.store.folder import Folder\n"
        "from musiva.store.page import Page\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))\n"
        "folder = Folder(Path(sys.argv[1]), 1 << 20)\n"
        "made = lambda n: Page({'x': torch.zeros(n, dtype=torch.uint8)}, 1.0)\n"
        "assert folder.put('small', made(1000))\n"
        "assert not folder.put('large', made(50_000))\n"
        "assert folder.failures == 1\n"
        "assert folder.get('small') is not None\n"
        "assert sorted(folder.keys) == ['small'], folder.keys\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="pages cannot be kept in"):
        Folder(tmp_path / "file" / "pages", 1)


def test_shared_memory_goes_with_the_last_that_uses_it() -> None:
    name = f"musiva-test-{os.getpid()}"
    first, second = Folder.shared(name, 1 << 20), Folder.shared(name, 1 << 20)
    first.put("k", page(100))
    first.close()
    assert second.get("k") is not None
    path = second.path
    second.close()
    assert not path.exists()


def test_what_a_killed_process_left_is_removed_and_what_is_used_is_not() -> None:
    code = (
        "import os, signal\n"
        "from musiva.store.folder import Folder\n"
        "print(Folder.shared(f'musiva-test-{os.getpid()}', 1 << 20).path, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    left = Path(told.stdout.strip())
    used = Folder.shared(f"musiva-test-used-{os.getpid()}", 1 << 20)
    other = Folder.shared(f"musiva-test-other-{os.getpid()}", 1 << 20)
    assert not left.exists()
    assert used.path.exists()
    used.close()
    other.close()
