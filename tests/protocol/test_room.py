"""The room itself: what it exports, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

import targon.protocol


def test_every_exported_name_is_there_once_and_in_order() -> None:
    names = targon.protocol.__all__
    assert [name for name in names if not hasattr(targon.protocol, name)] == []
    assert len(set(names)) == len(names)


def test_importing_the_room_loads_no_model_library_and_no_other_room() -> None:
    script = (
        "import sys, targon.protocol, targon.protocol.vectors\n"
        "heavy = {'torch', 'numba', 'transformers', 'fastapi', 'redis'} & set(sys.modules)\n"
        "rooms = {name.split('.')[1] for name in sys.modules if name.startswith('targon.')}\n"
        "sys.exit(f'{heavy} {rooms}' if heavy or rooms != {'protocol'} else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
