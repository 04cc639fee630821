"""Exit code 0 if a neuron says on its metrics port that it is well, else 1 and why: ``healthcheck.py PORT``."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request

DEADLINE_S = 5.0


def trouble(port: int) -> str | None:
    """What is wrong with the neuron, in words; None if nothing is."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=DEADLINE_S):
            return None
    except urllib.error.HTTPError as error:
        return error.read(1000).decode("utf-8", "replace")
    except (urllib.error.URLError, OSError) as error:
        return f"no answer on port {port}: {error}"


if __name__ == "__main__":
    why = trouble(int(sys.argv[1]))
    if why is not None:
        sys.exit(why)
