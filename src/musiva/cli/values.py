"""How values of flags are read; each raises InvalidInput, with the flag's name."""

from __future__ import annotations

import re
from collections.abc import Callable

from musiva.core.errors import InvalidInput

__all__ = ["number", "size", "whole"]

WHOLE = re.compile(r"[+-]?[0-9]{1,20}")
SIZE = re.compile(r"([0-9]{1,6})[xX]([0-9]{1,6})")


def size(text: str) -> tuple[int, int]:
    """ "WIDTHxHEIGHT" or one number for both sides."""
    match = SIZE.fullmatch(text if "x" in text.lower() else f"{text}x{text}")
    if match is None:
        raise InvalidInput(
            "size", text, "WIDTHxHEIGHT in pixels, such as 128x96, or one number for both sides"
        )
    return int(match[1]), int(match[2])


def whole(field: str, low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        value = int(text) if WHOLE.fullmatch(text) else None
        if value is None or not low <= value <= high:
            raise InvalidInput(field, text, f"a whole number from {low} to {high}")
        return value

    return read


def number(field: str, low: float, high: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            value = None if "_" in text else float(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise InvalidInput(field, text, f"a number from {low:g} to {high:g}")
        return value

    return read
