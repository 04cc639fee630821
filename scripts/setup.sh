#!/bin/sh
# Finds a Python that can carry the project and lets it set up .venv: sh scripts/setup.sh (run|develop)
# PYTHON=/path/to/python names one instead of looking.
set -eu

found=""
old=""
bare=""
for name in ${PYTHON:-python3.11 python3 python3.12 python3.13 python3.14}; do
    # a name can be there and not run (a version manager's stand-in), so ask it
    version=$("$name" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
    if ! "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        old="$old $name (Python $version)"
    elif ! "$name" -c 'import venv, ensurepip' 2>/dev/null; then
        bare="$bare $name (Python $version)"
    else
        found=$name
        break
    fi
done

if [ -n "$found" ]; then
    exec "$found" "$(dirname "$0")/setup.py" "$@"
elif [ -n "$bare" ]; then
    echo "error: found$bare, which can't make virtual environments; expected the modules venv and ensurepip." >&2
    echo "       On Debian and Ubuntu: apt-get install python3-venv. Then run make again." >&2
else
    echo "error: found ${old:-no Python}; expected Python 3.11 or newer as python3.11 or python3." >&2
    echo "       Install one (Debian and Ubuntu: apt-get install python3 python3-venv)," >&2
    echo "       or name it: make PYTHON=/path/to/python3.11 ..." >&2
fi
exit 1
