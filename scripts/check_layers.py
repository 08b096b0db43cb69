#!/usr/bin/env python3
"""Fails when a source file includes a part that its own part may not know. The table is design section 4's arrows."""
import pathlib
import re
import sys

MAY_INCLUDE = {
    "base": set(),
    "proto": {"base"},
    "cachefiles": {"base", "proto"},
    "source": {"base", "proto"},
    "image": {"base", "proto"},
    "front": {"base", "proto", "cachefiles"},
    "fetch": {"base", "proto", "image", "source"},
    "daemon": {"base", "proto", "cachefiles", "front"},
    "cli": {"base", "proto"},
    "shim": {"base", "proto"},
    "snapshotter": {"base", "proto"},
}
INCLUDE = re.compile(r'^\s*#\s*include\s*"([a-z_]+)/')


def main() -> int:
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    wrong = []
    for part, allowed in MAY_INCLUDE.items():
        for path in sorted((root / part).rglob("*")):
            if path.suffix not in (".h", ".cpp"):
                continue
            for number, line in enumerate(path.read_text().splitlines(), 1):
                match = INCLUDE.match(line)
                if not match or match[1] == part or match[1] not in MAY_INCLUDE:
                    continue
                if match[1] not in allowed:
                    wrong.append(f"{path.relative_to(root)}:{number}: {part} must not include {match[1]}")
    print("\n".join(wrong), file=sys.stderr, end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
