"""A part of a bench in a process of its own: other libraries, another number of threads, a clean
memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from musiva.core.errors import ExecutionFailed, Unavailable

__all__ = ["Message", "child_environment", "run_child", "serve_child"]

ABSENT = "No module named"
# Objects of JSON, written and read by the two ends of this module only.
Message: TypeAlias = Mapping[str, Any]


def run_child(module: str, question: Message, *, threads: int, timeout: float = 3600) -> Message:
    """Run `python -m module`, which answers `question` by `serve_child`.

    Raises Unavailable if it lacks a package, ExecutionFailed if it failed otherwise or took too
    long.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-m", module],
            input=json.dumps(question),
            capture_output=True,
            text=True,
            timeout=timeout,
            env=child_environment(threads),
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ExecutionFailed(f"{module}: no answer within {timeout:.0f} s") from error
    if done.returncode:
        told = done.stderr.strip().splitlines() or ["nothing on stderr"]
        if ABSENT in told[-1]:
            raise Unavailable(f"{module}: {told[-1]}; install musiva[diffusers]")
        raise ExecutionFailed(f"{module}: exit code {done.returncode}: " + "\n".join(told[-15:]))
    return json.loads(done.stdout.splitlines()[-1])


def serve_child(answer: Callable[[Message], Message]) -> None:
    """The other end: a question on stdin, its answer as the last line on stdout."""
    question = json.load(sys.stdin)
    print(json.dumps(answer(question)), flush=True)


def child_environment(threads: int) -> dict[str, str]:
    """This process's environment with a number of threads, and this very package on the path."""
    source = str(Path(__file__).parents[2])
    path = os.pathsep.join([source, *filter(None, [os.environ.get("PYTHONPATH")])])
    fixed = {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "MUSIVA_THREADS": str(threads),
    }
    offline = {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    return {**os.environ, "PYTHONPATH": path, **fixed, **offline}
