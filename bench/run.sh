#!/usr/bin/env bash
# run.sh: every benchmark (make bench): the programs beside this file, then whole mounts. Figures go to standard output; the
# machine they belong to is named first. Needs root for the mounts.
set -euo pipefail
cd "$(dirname "$0")/.."
echo "machine: $(nproc) cores, $(uname -r), $(awk '/MemTotal/ { print int($2 / 1048576) " GiB" }' /proc/meminfo)"
for program in build/bin/*_bench; do
  [ -x "$program" ] && [ "$(basename "$program")" != layer_bench ] || continue
  echo "== $(basename "$program")"
  "$program"
done
[ "$(id -u)" = 0 ] || { echo "bench: the rest needs root: it mounts" >&2; exit 1; }
export PYTHONPATH=$PWD/tests/support PYTHONDONTWRITEBYTECODE=1
apart=(unshare --mount --propagation private --pid --fork --kill-child --mount-proc /usr/bin/python3)
echo "== sequential reads of one big file"
"${apart[@]}" bench/sequential_read.py
echo "== mounting an image of many layers by its index"
"${apart[@]}" bench/many_layers.py
echo "== takeover of many mounts, and what surviving costs"
unshare --net "${apart[@]}" bench/survive.py
echo "== time to ready of the demo image"
scripts/demo.sh --json
echo "== reading and indexing its largest layer"
build/bin/layer_bench "$(find build/demo/oci/blobs/sha256 -type f -printf '%s %p\n' | sort -n | tail -n 1 | cut -d ' ' -f 2)"
echo "== the same, and until everything is read, against containerd over shaped links"
unshare --net "${apart[@]}" bench/start.py
echo "== a big file over HTTP, against curl over shaped links"
unshare --net "${apart[@]}" bench/fetch.py
