"""From arguments to an exit code: the one place where errors become messages."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from musiva.cli.parser import FLAGS, build_parser
from musiva.core.env import Env
from musiva.core.errors import InvalidInput, MusivaError

__all__ = ["main"]

INTERRUPTED = 130
BROKEN_PIPE = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code: 0, or that of the error (`musiva.core.errors`), 130
    after Ctrl-C.

    Errors go to stderr as one line, `musiva: error: ...`; with MUSIVA_LOG=debug the traceback comes
    first.
    """
    try:
        env = Env.read()
        logging.basicConfig(
            level=env.log.upper(), format="musiva: %(levelname)s: %(message)s", force=True
        )
        logging.captureWarnings(True)
        arguments = build_parser().parse_args(argv)
        command = import_module(f"musiva.cli.{arguments.command}")
        return command.run(arguments, env)
    except MusivaError as error:
        logging.getLogger(__name__).debug("the command failed", exc_info=True)
        print(f"musiva: error: {_in_flags(error)}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("musiva: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away; nothing may be written there when Python flushes at
        # exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE


def _in_flags(error: MusivaError) -> MusivaError:
    """What it says, of the flag as it is typed."""
    if not isinstance(error, InvalidInput):
        return error
    return InvalidInput(FLAGS.get(error.field, error.field), error.value, error.allowed)
