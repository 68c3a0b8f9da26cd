"""Limits of the fields of policies."""

from __future__ import annotations

from musiva.core.errors import InvalidInput

__all__ = ["check_number", "check_whole"]


def check_whole(name: str, value: object, low: int, high: int) -> None:
    """Raises InvalidInput."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise InvalidInput(name, value, f"a whole number from {low} to {high}")


def check_number(name: str, value: object, low: float, high: float) -> None:
    """Raises InvalidInput."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
        raise InvalidInput(name, value, f"a number from {low:g} to {high:g}")
