"""The command line. Reading arguments imports no torch; a command imports what it needs when it
runs.
"""

from __future__ import annotations

from musiva.cli.entry import main

__all__ = ["main"]
