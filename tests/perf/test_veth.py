"""A link of virtual Ethernet devices that is taken down."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from musiva.core.errors import Unavailable
from musiva.perf.far_directory import FarDirectory
from musiva.perf.veth import Veth, can_veth
from musiva.store.directory import RemoteDirectory

SECRET = b"far"
TIMEOUT = 0.5


@pytest.fixture
def veth() -> Iterator[Veth]:
    if not can_veth():
        pytest.skip("needs the right to make network namespaces")
    with closing(Veth()) as one:
        yield one


@pytest.mark.parametrize("fault", ["down", "silent", "drop"])
def test_who_is_behind_a_link_answers_before_a_fault_and_after(veth: Veth, fault: str) -> None:
    if fault == "drop" and shutil.which("nft") is None:
        pytest.skip("needs nft")
    far = FarDirectory(veth.far, SECRET, veth.prefix)
    with closing(far), closing(RemoteDirectory(far.address, SECRET, TIMEOUT)) as directory:

        def is_there() -> bool:
            started = time.monotonic()
            try:
                assert directory.find("a page", 1) == []
            except Unavailable:
                assert time.monotonic() - started < 2 * TIMEOUT
                return False
            return True

        assert is_there()
        getattr(veth, fault)()
        assert not is_there()
        assert not is_there()
        veth.up()
        end = time.monotonic() + 10.0
        while not is_there():
            assert time.monotonic() < end, "it does not come back"


def test_a_command_that_cannot_run_is_named() -> None:
    with pytest.raises(Unavailable, match="no directory can be served at"):
        FarDirectory("203.0.113.1", SECRET)
