"""What importing the room costs, and what is said where it can't be."""

from __future__ import annotations

import subprocess
import sys


def test_importing_the_client_loads_no_model_library_and_no_running_role() -> None:
    script = (
        "import sys, targon.client\n"
        "heavy = {'torch', 'numba', 'transformers', 'fastapi', 'redis'} & set(sys.modules)\n"
        "rooms = {name.split('.')[1] for name in sys.modules if name.startswith('targon.')}\n"
        "sys.exit(f'{heavy} {rooms}' if heavy or rooms != {'client', 'protocol'} else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_without_openai_s_package_the_message_says_what_to_install() -> None:
    script = "import sys; sys.modules['openai'] = None; import targon.client"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "pip install 'targon[client]'" in done.stderr
