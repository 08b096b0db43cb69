#!/usr/bin/env python3
"""spec_numbers.py SOURCE_DIR: every transcript (T01 to T85) and every scar (S1 to S45) of the engine's specification has a test
that carries its number in its name: T45_T46_S5_..., or T04_to_T09_... for a range."""
import pathlib
import re
import sys

# What no test can provoke, and why.
EXCUSED = {}

root = pathlib.Path(sys.argv[1])
named = set()
for folder in ("cachefiles", "daemon", "tests"):
    for path in (root / folder).rglob("*_test.cpp"):
        for name in re.findall(r"^TEST(?:_F|_P)?\(\w+,\s*(\w+)\)", path.read_text(), re.M):
            for first, last in re.findall(r"(?:^|_)T(\d+)_to_T(\d+)(?=_)", name):
                named.update(f"T{number:02}" for number in range(int(first), int(last) + 1))
            for part in name.split("_"):
                if re.fullmatch(r"[TS]\d+", part):
                    named.add(part)
wanted = [f"T{number:02}" for number in range(1, 86)] + [f"S{number}" for number in range(1, 46)]
missing = [number for number in wanted if number not in named and number not in EXCUSED]
stale = [number for number in EXCUSED if number in named]
for number in missing:
    print(f"spec_numbers: no test is named after {number}")
for number in stale:
    print(f"spec_numbers: {number} is excused and has a test")
print(f"spec_numbers: {len(wanted) - len(missing)} of {len(wanted)}, {len(EXCUSED)} excused")
sys.exit(1 if missing or stale else 0)
