#!/usr/bin/env bash
# fuzz.sh BUILD_DIR SECONDS: runs every fuzz target that long; what it finds stays in BUILD_DIR/crashes. Seeds are taken
# from tests/fuzz/corpus/<target without _fuzz> where there are any.
set -euo pipefail
build=$1 seconds=$2
source=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$build/crashes"
status=0
for target in "$build"/bin/*_fuzz; do
  name=$(basename "$target")
  mkdir -p "$build/corpus/$name"
  corpora=("$build/corpus/$name")
  [ ! -d "$source/tests/fuzz/corpus/${name%_fuzz}" ] || corpora+=("$source/tests/fuzz/corpus/${name%_fuzz}")
  log=$build/crashes/$name.log
  if "$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -artifact_prefix="$build/crashes/$name-" \
      "${corpora[@]}" > "$log" 2>&1; then
    echo "fuzz: $name: $(grep -o 'Done [0-9]* runs' "$log" || echo finished)"
    rm -f "$log"
  else
    echo "fuzz: $name FAILED, see $log" >&2
    tail -n 15 "$log" >&2
    status=1
  fi
done
exit $status
