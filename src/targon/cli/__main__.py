"""``python -m targon.cli``."""

from __future__ import annotations

import sys

from targon.cli import main

if __name__ == "__main__":
    sys.exit(main())
