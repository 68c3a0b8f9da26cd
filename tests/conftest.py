"""Fixtures for all tests."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

# Libraries read these when they are first imported, and child processes inherit them. Nothing here
# may reach for a network. Two test processes run side by side: OpenMP's threads wait for each other
# at the end of every kernel, which made the suite five times slower with two threads in each.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests.fixtures import *  # noqa: F403


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Kernel choices and captures of the tests stay out of the user's cache folder; all processes
    of a run share them.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MUSIVA_CACHE_DIR", str(shared / "cache"))
        yield


@pytest.fixture(autouse=True)
def _no_engine_stays_behind() -> Iterator[None]:
    """Fails a test that leaves an engine's thread running."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + 10
    # Asked again, not joined: a worker that was killed as it began may start one still, and end it.
    while left := [
        t for t in threading.enumerate() if t.name == "musiva-engine" and t not in before
    ]:
        assert time.monotonic() < deadline, f"{len(left)} engines were not closed"
        time.sleep(0.01)


# Folders, or files in them, with the longest tests.
LONG = ("recipes", "perf", "cli/test_cluster.py", "server", "engine", "studio", "contract", "cli")


def _place(path: Path) -> int:
    names = (str(path), path.parts[0])
    return next((i for i, name in enumerate(LONG) if name in names), len(LONG))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files come first, so that processes that share them out end together. GPU tests are
    skipped where there is no GPU; torch is only asked when there are any.
    """
    items.sort(key=lambda item: _place(item.path.relative_to(Path(__file__).parent)))
    gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not gpu:
        return
    import torch

    if not torch.cuda.is_available():
        for item in gpu:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
