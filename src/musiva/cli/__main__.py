"""`python -m musiva.cli` is `musiva`."""

from __future__ import annotations

import sys

from musiva.cli.entry import main

sys.exit(main())
