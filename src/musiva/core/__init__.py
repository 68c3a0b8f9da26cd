"""What everything else speaks in: requests and plans, rows, errors, the environment.

The modules are imported one by one, since `types`, `errors` and `env` need no torch and `pack` and
`run` do.
"""

from __future__ import annotations

__all__: list[str] = []
