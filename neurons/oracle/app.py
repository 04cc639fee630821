"""The oracle, started as a file: ``app.py FLAGS`` is ``targon oracle FLAGS``.

For process managers that run a script with an interpreter, as PM2 does (docs/pm2.md).
"""

from __future__ import annotations

import sys

from targon.cli import main

if __name__ == "__main__":
    sys.exit(main(["oracle", *sys.argv[1:]]))
