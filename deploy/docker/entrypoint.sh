#!/bin/sh
# What a container runs: `targon $TARGON_ROLE` with the flags that it is given, or another command of targon.
#
#   docker run … targon-prover                       targon prover
#   docker run … targon-prover --axon.port 8092      targon prover --axon.port 8092
#   docker run … targon-prover wallet create         targon wallet create
#
# Settings are variables already (TARGON_PROVER__WALLET__NAME is --wallet.name) and pass through. A variable NAME_FILE
# names a file that holds the value of NAME, as Docker's secrets do.
set -eu

fail() {
    echo "entrypoint: $*" >&2
    exit 2
}

# from_file NAME: takes NAME from the file that NAME_FILE names
from_file() {
    eval "file=\${$1_FILE:-}"
    [ -n "$file" ] || return 0
    eval "value=\${$1:-}"
    [ -z "$value" ] || fail "got both $1 and $1_FILE, expected one of them"
    [ -r "$file" ] || fail "$1_FILE: got $file, expected a file that user $(id -u) can read: mount it, or unset $1_FILE"
    value=$(cat "$file")
    [ -n "$value" ] || fail "$1_FILE: got $file, which is empty, expected the secret in it"
    export "$1=$value"
    unset "$1_FILE"
}

from_file TARGON_ENGINE_API_KEY
from_file TARGON_VERIFIER__DATABASE__PASSWORD

case ${1-} in
    "" | -*) ;;
    *) exec targon "$@" ;;
esac

case ${TARGON_ROLE:-} in
    prover) name=${TARGON_PROVER__WALLET__NAME:-} ;;
    verifier) name=${TARGON_VERIFIER__WALLET__NAME:-} ;;
    oracle) name=${TARGON_ORACLE__WALLET__NAME:-} ;;
    "") fail "TARGON_ROLE is missing: expected prover, verifier or oracle" ;;
    *) fail "TARGON_ROLE: got $TARGON_ROLE, expected prover, verifier or oracle" ;;
esac

# a wallet that nobody named would be looked for as "default", which is rarely meant in a container
case " $* " in
    *" --help "* | *" -h "* | *" --config "* | *" --config="* | *" --wallet.name "* | *" --wallet.name="*) ;;
    *)
        variable=TARGON_$(echo "$TARGON_ROLE" | tr '[:lower:]' '[:upper:]')__WALLET__NAME
        [ -n "$name" ] || fail "$variable is missing: name the wallet whose hotkey signs (docker run --env $variable=…)"
        ;;
esac

exec targon "$TARGON_ROLE" "$@"
