"""A link between this machine and a second one that is none: a network namespace behind a pair of
virtual Ethernet devices, which can be taken down.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress

from musiva.core.errors import Unavailable

__all__ = ["Veth", "can_veth"]

# Of the block that is set apart for measuring networks (RFC 2544): nobody's.
NEAR, FAR, PREFIX = "198.18.77.1", "198.18.77.2", 30
TABLE = "musiva"


def can_veth() -> bool:
    """Whether there is what it takes: Linux's `ip`, and the right to make namespaces."""
    if shutil.which("ip") is None:
        return False
    try:
        Veth().close()
    except Unavailable:
        return False
    return True


class Veth:
    """near, far: the addresses of both ends. prefix: what a command begins with that is to run at
    the far end. Raises Unavailable without the right to make one, or where there is one already.
    """

    near, far = NEAR, FAR

    def __init__(self) -> None:
        tag = f"{os.getpid():x}"
        self._space, self._device, self._other = f"musiva-{tag}", f"mv{tag}a", f"mv{tag}b"
        self.prefix = ("ip", "netns", "exec", self._space)
        try:
            _ip("netns", "add", self._space)
            ends = ("peer", "name", self._other, "netns", self._space)
            _ip("link", "add", self._device, "type", "veth", *ends)
            _ip("addr", "add", f"{NEAR}/{PREFIX}", "dev", self._device)
            _ip("-n", self._space, "addr", "add", f"{FAR}/{PREFIX}", "dev", self._other)
            _ip("-n", self._space, "link", "set", "lo", "up")
            self.up()
        except Unavailable:
            self.close()
            raise

    def down(self) -> None:
        """Who sends is told at once that the other end cannot be reached."""
        _ip("link", "set", self._device, "down")

    def silent(self) -> None:
        """What is sent is lost, and nobody is told."""
        _ip("-n", self._space, "link", "set", self._other, "down")

    def drop(self) -> None:
        """What comes to the far end is thrown away there. Raises Unavailable without `nft`."""
        rules = (
            f"add table inet {TABLE}",
            f"add chain inet {TABLE} input {{ type filter hook input priority 0; policy drop; }}",
        )
        for rule in rules:
            _run(*self.prefix, "nft", rule)

    def up(self) -> None:
        """After whatever was done to it."""
        _ip("link", "set", self._device, "up")
        _ip("-n", self._space, "link", "set", self._other, "up")
        if shutil.which("nft") is not None:
            with suppress(Unavailable):  # nothing was dropped
                _run(*self.prefix, "nft", f"delete table inet {TABLE}")

    def close(self) -> None:
        """May be repeated."""
        for words in (("link", "delete", self._device), ("netns", "delete", self._space)):
            with suppress(Unavailable):
                _ip(*words)


def _ip(*words: str) -> None:
    _run("ip", *words)


def _run(*words: str) -> None:
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError as error:
        raise Unavailable(f"{words[0]}: {error}") from error
    if done.returncode:
        raise Unavailable(f"{' '.join(words)}: {done.stderr.strip()}")
