"""Bench `suite`: seconds that the tests of this checkout take, set-up not counted."""

from __future__ import annotations

import subprocess
import sys
import time

from musiva.core.errors import Unavailable
from musiva.perf.benches.base import Findings
from musiva.perf.report import checkout

__all__ = ["KEYS", "measure"]

KEYS = ("test_suite_seconds",)


def measure(*, quick: bool) -> Findings:
    """All tests as `make test` runs them; a quick run only collects them and tells no seconds."""
    root = checkout()
    if root is None:
        raise Unavailable("the tests are not installed; run this from a checkout")
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile"]
    start = time.perf_counter()
    done = subprocess.run(
        [*command, "--collect-only"] if quick else command,
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - start
    findings = Findings(figures={"test_suite_seconds": None if quick else seconds})
    summary = done.stdout.strip().splitlines()[-1:] or done.stderr.strip().splitlines()[-1:]
    findings.gate.check("pytest", " ".join(summary), holds=done.returncode == 0)
    return findings
