"""llama.cpp's own HTTP server, from the xllamacpp package: llama_server.py MODEL.gguf PORT NAME.

The same as `llama-server -m MODEL.gguf --port PORT -a NAME -np 4 -c 8192 -t 1`, where that program is installed.
"""

from __future__ import annotations

import signal
import sys

import xllamacpp


def main() -> None:
    path, port, name = sys.argv[1:]
    parameters = xllamacpp.CommonParams()
    parameters.model.path = path
    parameters.model_alias = {name}
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = int(port)
    parameters.n_ctx = 8192
    parameters.n_parallel = 4
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
    parameters.use_jinja = parameters.endpoint_props = True
    server = xllamacpp.Server(parameters)
    sys.stdout.write(f"{server.listening_address}\n")
    sys.stdout.flush()
    signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    main()
