#!/usr/bin/env bash
# lint.sh: formatting, includes that point up, folders without a README, shell and Python that does not parse.
set -euo pipefail
cd "$(dirname "$0")/.."
status=0

mapfile -t sources < <(git ls-files '*.h' '*.cpp')
clang-format --dry-run --Werror "${sources[@]}" || status=1
python3 scripts/check_layers.py . || status=1

for folder in */; do
  case $folder in build*/ | cmake/ | scripts/) continue ;; esac
  [ -n "$(git ls-files "$folder")" ] || continue
  [ -e "$folder/README.md" ] || { echo "lint: ${folder}README.md is missing" >&2; status=1; }
done

git ls-files '*.sh' .ci/run | while read -r script; do bash -n "$script"; done || status=1
git ls-files '*.py' | while read -r script; do
  python3 -c 'import ast, sys; ast.parse(open(sys.argv[1]).read(), sys.argv[1])' "$script"
done || status=1

long=$(wc -l "${sources[@]}" | awk '$2 != "total" && $1 > 600 { print $2 ": " $1 " lines" }')
[ -z "$long" ] || { echo "lint: past 600 lines: $long" >&2; status=1; }
exit $status
