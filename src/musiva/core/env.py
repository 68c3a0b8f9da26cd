"""Environment variables, all of them; docs/environment.md has the table."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

from musiva.core.errors import InvalidInput

__all__ = ["Env", "checked_key"]

Kernels = Literal["auto", "plain", "prepacked"]
KERNELS = ("auto", "plain", "prepacked")
LEVELS = ("debug", "info", "warning", "error")
VARIABLES = (
    "MUSIVA_API_KEY",
    "MUSIVA_CACHE_DIR",
    "MUSIVA_KERNELS",
    "MUSIVA_LOG",
    "MUSIVA_THREADS",
)
MAX_THREADS = 1024
KEY = re.compile(r"[!-~]{1,512}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Env:
    """What the environment asks for.

    cache_dir: kernel choices, profiles, captures and the like. threads: of the CPU kernels, None
    for PyTorch's default. log: level of Musiva's loggers. kernels: the linear kernel on a CPU,
    "auto" to probe. api_key: what a server asks of its clients, and the command line sends to one;
    None for nothing.
    """

    cache_dir: Path
    threads: int | None = None
    log: str = "warning"
    kernels: Kernels = "auto"
    api_key: str | None = field(default=None, repr=False)

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> Env:
        """An empty value counts as none. Raises InvalidInput naming the variable, its value and
        what is allowed, also for a `MUSIVA_` variable that does not exist: it would do nothing.
        """
        for name in sorted(environ):
            if name.startswith("MUSIVA_") and name not in VARIABLES:
                raise InvalidInput(name, environ[name], f"no such variable; {', '.join(VARIABLES)}")
        cache = environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        return cls(
            cache_dir=Path(environ.get("MUSIVA_CACHE_DIR") or Path(cache) / "musiva"),
            threads=_count(environ, "MUSIVA_THREADS"),
            log=_choice(environ, "MUSIVA_LOG", LEVELS, "warning"),
            kernels=cast(Kernels, _choice(environ, "MUSIVA_KERNELS", KERNELS, "auto")),
            api_key=checked_key("MUSIVA_API_KEY", environ.get("MUSIVA_API_KEY") or None),
        )


def checked_key(field: str, key: str | None) -> str | None:
    """The key, if a header can carry it. Raises InvalidInput, which never shows it."""
    if key is not None and not (isinstance(key, str) and KEY.fullmatch(key)):
        allowed = "1 to 512 visible ASCII characters without a space"
        raise InvalidInput(field, "(hidden)", allowed)
    return key


def _choice(environ: Mapping[str, str], name: str, allowed: tuple[str, ...], default: str) -> str:
    value = environ.get(name) or default
    if value not in allowed:
        raise InvalidInput(name, value, ", ".join(allowed))
    return value


def _count(environ: Mapping[str, str], name: str) -> int | None:
    value = environ.get(name)
    if not value:
        return None
    if (
        not (value.isascii() and value.isdecimal() and len(value) <= 4)
        or not 1 <= int(value) <= MAX_THREADS
    ):
        raise InvalidInput(name, value, f"a whole number from 1 to {MAX_THREADS}")
    return int(value)
