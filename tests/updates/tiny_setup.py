"""The set-up of the tiny neuron: its environment is a file with its version. It lies there as ``setup.py``."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
BEHAVIOUR = (ROOT / "BEHAVIOUR").read_text("utf-8").strip()
ENVIRONMENT = ROOT / "environment" / "version"
wish = Path(os.environ["FOLDER"]) / "die in set-up"

ENVIRONMENT.parent.mkdir(exist_ok=True)
ENVIRONMENT.write_text("half made", "utf-8")
if wish.exists():
    wish.unlink()
    # whoever started us dies, and we go on, for a while
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(1.0)
    ENVIRONMENT.write_text("made by a leftover", "utf-8")
if BEHAVIOUR == "cannot be set up":
    sys.exit("there is no such package")
if BEHAVIOUR == "hangs in its set-up":
    time.sleep(3600)
ENVIRONMENT.write_text((ROOT / "VERSION").read_text("utf-8").strip(), "utf-8")
