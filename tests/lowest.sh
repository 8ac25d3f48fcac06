#!/usr/bin/env bash
# Runs what is declared: the lowest versions of every dependency on Python 3.11, the newest on every later Python.
#
# The core and the users' extras have the lowest versions, the tools that test them the newest. Environments are made by
# uv (UV names it) beside the others, .venv-lowest and .venv-3.N, and are brought up to date in seconds.
set -euo pipefail
cd "$(dirname "$0")/.."
UV=${UV:-uv}
EXTRAS=(all arima prophet fast llamacpp)
TOOLS=(pytest pytest-rerunfailures pytest-timeout pytest-xdist jsonschema kopf nbclient ipykernel mkdocs-material "mkdocstrings[python]")
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MPLBACKEND=Agg UV_NO_PROGRESS=1

step() { printf '\n== %s\n' "$1"; }

# environment PYTHON DIRECTORY RESOLUTION: this project for that interpreter, with every extra of a user.
environment() {
    local extras pinned="$2/pinned.txt" python="$2/bin/python"
    extras=$(printf -- '--extra %s ' "${EXTRAS[@]}")
    [ -x "$python" ] || "$UV" venv --quiet --python "$1" "$2"
    # shellcheck disable=SC2086  # the options are words
    "$UV" pip compile --quiet --upgrade --python "$python" --resolution "$3" $extras --output-file "$pinned" pyproject.toml
    "$UV" pip install --quiet --python "$python" --requirement "$pinned" --editable . "${TOOLS[@]}"
}

# check DIRECTORY TEST...: these tests, without those that take long.
check() {
    local python="$1/bin/python"
    shift
    "$python" -m pytest --quiet --disable-warnings --numprocesses 2 --dist worksteal --hypothesis-profile fast \
        -m 'not slow and not long and not vllm' -p no:cacheprovider "$@"
}

step "Python 3.11, lowest versions: environment"
environment "${PYTHON311:-3.11}" .venv-lowest lowest-direct
"$UV" pip list --quiet --python .venv-lowest/bin/python | grep -iE '^(numpy|scipy|pydantic|circus|kubernetes|numba) ' | tr -s ' '

step "Python 3.11, lowest versions: unit tests"
check .venv-lowest tests/unit

step "Python 3.11, lowest versions: fresh processes, and what each extra is for"
check .venv-lowest \
    tests/integration/test_first_decision.py \
    tests/integration/cli/test_commands.py \
    tests/integration/etcd \
    tests/integration/forecasting \
    tests/integration/kubernetes/test_kubernetes_connection.py \
    tests/integration/mock_workers \
    tests/integration/sources/test_scrape_http.py \
    tests/e2e/test_run.py \
    'tests/e2e/test_demo_command.py::test_a_trace_scales_workers_up_and_down_and_loses_nothing[aggregated]'

for minor in 12 13 14; do
    python=$(ls -d ~/.pyenv/versions/3.$minor.*/bin/python3.$minor 2>/dev/null | tail -1 || true)
    python=${python:-$(command -v "python3.$minor" || true)}
    [ -n "$python" ] || continue
    step "Python 3.$minor, newest versions"
    environment "$python" ".venv-3.$minor" highest
    check ".venv-3.$minor" tests/unit/core tests/unit/config tests/unit/guards tests/unit/runtime \
        tests/unit/sources tests/integration/test_first_decision.py
done
