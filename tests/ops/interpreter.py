"""Triton kernels without a GPU: a child process in which Triton interprets them.

Triton reads TRITON_INTERPRET when it is imported, and other tests' libraries import it for reasons
of their own; hence the process. It is told a function and its arguments, and answers with the
result and the arguments as they are then.
"""

from __future__ import annotations

import importlib
import os
import pickle
import subprocess
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Call", "interpreter"]


class Call:
    """Runs `musiva.ops.<op>.triton.<name>` in the child."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child

    def __call__(self, op: str, name: str, *args):
        """(result, arguments afterwards). A failure there fails here, with its traceback."""
        stdin, stdout = self._child.stdin, self._child.stdout
        assert stdin is not None
        assert stdout is not None
        pickle.dump((op, name, args), stdin)
        stdin.flush()
        answer = pickle.load(stdout)
        assert not isinstance(answer, str), answer
        return answer


@contextmanager
def interpreter() -> Iterator[Call]:
    child = subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "TRITON_INTERPRET": "1"},
    )
    with child:
        yield Call(child)


def repair_bfloat16() -> None:
    """Triton's interpreter keeps bfloat16 as integers: it multiplies their bits in `dot`, and cuts
    off where a GPU rounds.
    """
    import torch
    from triton import language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    cast, dot = InterpreterBuilder.cast_impl, InterpreterBuilder.create_dot

    def rounding_cast(self, src, dst_type):
        if (src.dtype.scalar, dst_type.scalar) != (tl.float32, tl.bfloat16):
            return cast(self, src, dst_type)
        rounded = torch.tensor(src.data).to(torch.bfloat16).view(torch.uint16)
        return TensorHandle(rounded.numpy(), tl.bfloat16)

    def widening_dot(self, a, b, *rest):
        wide = (cast(self, x, tl.float32) if x.dtype.scalar == tl.bfloat16 else x for x in (a, b))
        return dot(self, *wide, *rest)

    InterpreterBuilder.cast_impl, InterpreterBuilder.create_dot = rounding_cast, widening_dot


def serve() -> None:
    repair_bfloat16()
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    while True:
        try:
            op, name, args = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            module = importlib.import_module(f"musiva.ops.{op}.triton")
            with warnings.catch_warnings(action="error"):
                answer = getattr(module, name)(*args), args
        except Exception:
            answer = traceback.format_exc()
        pickle.dump(answer, answers)
        answers.flush()


if __name__ == "__main__":
    serve()
