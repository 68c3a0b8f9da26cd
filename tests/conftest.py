"""Fixtures for all tests."""

from __future__ import annotations

from tests.fixtures import *  # noqa: F403
