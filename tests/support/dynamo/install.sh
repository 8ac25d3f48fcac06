#!/usr/bin/env bash
# Prints the path of a Python interpreter that has NVIDIA Dynamo's frontend and mocker, and installs it there first where
# it is missing: 0.3 GB, in about a minute, once per machine.
#
# With --find it only says where it is, and fails where it is not.
#
#   PYTHON           the interpreter to install for (left out: python3)
#   XDG_CACHE_HOME   where the virtual environment is kept (left out: ~/.cache)
#
# Dynamo's own requirements are left out but for what these two programs import: some of them are downloaded from elsewhere
# when they are installed, and most are for GPUs.
set -euo pipefail

RECIPE=1 # part of the cache's key: count it up when the lines below change
VERSION=1.6.1
REQUIREMENTS=("msgspec>=0.19,<1" "packaging" "pydantic>=2.10.6,<=2.13.5" "pyyaml>=6,<7" "uvloop>=0.21,<1")

python=${PYTHON:-python3}
version=$("$python" -c 'import sys; print("python{}.{}".format(*sys.version_info))')
cache=${XDG_CACHE_HOME:-$HOME/.cache}/dynamo-planner/dynamo
venv=$cache/$VERSION-$version-$RECIPE
if [ ! -e "$venv/complete" ] && [ "${1:-}" = --find ]; then
    echo "Dynamo is not installed for the tests yet: run tests/support/dynamo/install.sh once" >&2
    exit 1
fi
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
if [ ! -e "$venv/complete" ]; then
    printf 'install: installing Dynamo %s into %s\n' "$VERSION" "$venv" >&2
    "$python" -m venv --clear "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "${REQUIREMENTS[@]}" >&2
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
        "ai-dynamo==$VERSION" "ai-dynamo-runtime==$VERSION" >&2
    touch "$venv/complete"
fi
echo "$venv/bin/python"
