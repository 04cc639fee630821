"""Tests against real engines: `make test-engines` installs them in .venv-engines and runs these."""
