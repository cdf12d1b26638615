# Sourced by the other scripts: one environment in .venv, made or mended only when pyproject.toml changed.
# EDGEDEPLOY_VENV names another place for it; EDGEDEPLOY_PYTHON another interpreter (3.11 or newer).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

VENV=${EDGEDEPLOY_VENV:-$PWD/.venv}
PY=$VENV/bin/python

say() { printf '==> %s\n' "$*" >&2; }

find_python() {
    local name
    for name in "${EDGEDEPLOY_PYTHON:-}" python3.11 python3.12 python3.13 python3; do
        if [ -n "$name" ] && "$name" -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    echo "edgedeploy needs Python 3.11, 3.12 or 3.13 with the venv module; set EDGEDEPLOY_PYTHON to one" >&2
    return 2
}

# ensure_env EXTRAS: torch first, because a later resolver would take a build with CUDA. Extras that another script asked for
# stay, so that scripts may follow one another without installing anew. pip would compile every file of every package, on one
# processor and for half of its time; what is imported is compiled then, unless Python is told to keep no bytecode.
ensure_env() {
    local wanted stamp python compile
    wanted=$(tr ',' '\n' <<<"$1,$(cat "$VENV/.edgedeploy-extras" 2>/dev/null)" | sed '/^$/d' | sort -u | paste -sd, -)
    stamp=$(cat pyproject.toml - <<<"$wanted" | sha256sum | cut -d' ' -f1)
    if [ "$(cat "$VENV/.edgedeploy-stamp" 2>/dev/null)" != "$stamp" ]; then
        python=$(find_python)
        say "installing into $VENV ($("$python" --version))"
        [ -x "$PY" ] || "$python" -m venv "$VENV"
        compile=--no-compile
        [ -z "${PYTHONDONTWRITEBYTECODE:-}" ] || compile=--compile
        "$PY" -m pip install --quiet $compile --disable-pip-version-check "torch>=2.6,<2.14"
        "$PY" -m pip install --quiet $compile --disable-pip-version-check -e ".[$wanted]"
        echo "$wanted" >"$VENV/.edgedeploy-extras"
        echo "$stamp" >"$VENV/.edgedeploy-stamp"
    fi
}

# check_agent: the agent runs on boards' own Python, from 3.8 on. Types tell what of the library is newer; the last mypy that
# knows 3.8 is kept apart from the project's own.
check_agent() {
    local old=$VENV/mypy-for-3.8
    if [ ! -e "$old/ready" ]; then
        rm -rf "$old"
        "$PY" -m venv "$old"
        "$old/bin/python" -m pip install --quiet --disable-pip-version-check "mypy==1.14.1"
        touch "$old/ready"
    fi
    "$old/bin/mypy" --config-file= --python-version 3.8 --check-untyped-defs --no-site-packages --ignore-missing-imports \
        --follow-imports silent edgedeploy/runtime
}

# ensure_debian PROGRAM=PACKAGE ...: install what is missing when root on Debian; otherwise the tests that need it skip. A file's
# path may stand in the place of a program
ensure_debian() {
    local pair missing=()
    for pair in "$@"; do
        command -v "${pair%%=*}" >/dev/null || [ -x "/usr/sbin/${pair%%=*}" ] || [ -e "${pair%%=*}" ] || missing+=("${pair#*=}")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        say "not installed: ${missing[*]} (tests that need them will say so and skip)"
        return 0
    fi
    say "installing Debian packages: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
        say "could not install ${missing[*]} (tests that need them will say so and skip)"
}
