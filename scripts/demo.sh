#!/usr/bin/env bash
# demo.sh [PYTHON ARGUMENT…]: the demonstration (make demo). Works in a mount and a PID namespace of its own and on a fresh
# file system, so that nothing is left behind and both sides start equal. The image is kept in build/demo.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "demo: needs root: it mounts" >&2; exit 1; }
scripts/make_demo_image.sh build/demo
export PYTHONPATH=$PWD/tests/support PYTHONDONTWRITEBYTECODE=1
exec unshare --mount --propagation private --pid --fork --kill-child --mount-proc /usr/bin/python3 scripts/demo.py "$@"
