"""Child process: a directory of pages, at an address that is given, until its input ends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from musiva.comm import Service
from musiva.core.errors import Unavailable
from musiva.perf.child import child_environment
from musiva.store import Embedded, answering

__all__ = ["FarDirectory"]


class FarDirectory:
    """The other end. address: where it answers. Raises Unavailable where it does not start."""

    def __init__(self, host: str, secret: bytes, prefix: Sequence[str] = ()) -> None:
        """prefix: of the command, which may run it somewhere else."""
        self._process = subprocess.Popen(
            [*prefix, sys.executable, "-m", __name__, host, secret.hex()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=child_environment(1),
        )
        assert self._process.stdout is not None, "it was asked for"
        self.address = self._process.stdout.readline().strip()
        if not self.address:
            self.close()
            raise Unavailable(f"no directory can be served at {host}")

    def close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None, "it was asked for"
            stream.close()
        self._process.wait()


if __name__ == "__main__":
    host, secret = sys.argv[1:]
    service = Service(answering(Embedded()), bytes.fromhex(secret), host)
    print(service.address, flush=True)
    sys.stdin.read()
    service.close()
