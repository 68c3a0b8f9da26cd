"""The key of a server, for the command that asks for it and the one that sends it."""

from __future__ import annotations

from pathlib import Path

from musiva.core.env import Env, checked_key
from musiva.core.errors import InvalidInput

__all__ = ["chosen_key", "read_key", "refused_key"]


def chosen_key(file: Path | None, env: Env) -> str | None:
    """That of --api-key-file, or else of MUSIVA_API_KEY, or none. Raises InvalidInput."""
    return env.api_key if file is None else read_key(file)


def read_key(path: Path, field: str = "api-key-file") -> str:
    """The file's only line. Raises InvalidInput for the field, which never shows what is in the
    file.
    """
    allowed = "a text file with the key as its only line"
    try:
        lines = path.read_text(encoding="ascii").split("\n")
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not ASCII"
        raise InvalidInput(field, str(path), f"{allowed} ({reason})") from error
    if len([line for line in lines if line.strip()]) != 1 or not lines[0].strip():
        raise InvalidInput(field, str(path), allowed)
    key = lines[0].strip()
    checked_key(field, key)
    return key


def refused_key(file: Path | None, env: Env, error: InvalidInput) -> InvalidInput:
    """What the client says of the key, by where the key came from."""
    if file is not None:
        return InvalidInput("api-key-file", str(file), error.allowed)
    if env.api_key is not None:
        return InvalidInput("MUSIVA_API_KEY", "(hidden)", error.allowed)
    return InvalidInput("api-key-file", None, f"{error.allowed}; MUSIVA_API_KEY may hold it too")
