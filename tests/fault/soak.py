#!/usr/bin/env python3
"""All that survival is proven by, at length: soak.py [--other DIR] [PART…]; without a PART all of them, each within an hour. With the bin
directory of another version's build the upgrades alternate between both. Ends with a table, a line a part: the last line that its program
printed. The exit status is 0 when every part held. Needs root."""

import argparse
import pathlib
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).parent
PARTS = {
    "kills": ("kills.py", "--kills", "2000"),
    "fanotify": ("kills.py", "--kills", "2000", "--front", "fanotify"),
    "power": ("power.py", "--cuts", "500"),
    "rot": ("rot.py", "--rounds", "500"),
    "errors": ("errors.py", "--rounds", "300"),
    "liars": ("liars.py", "--rounds", "150"),
    "upgrades": ("upgrades.py", "--count", "200"),
    "memory": ("memory.py", "--mounts", "500", "--seconds", "600"),
    "tokens": ("tokens.py", "--minutes", "48"),
    "churn": ("churn.py", "--minutes", "55"),
}


def run(part, other):
    """How it went, and its last line."""
    command = [*PARTS[part], *(("--other", other) if other and part == "upgrades" else ())]
    print(f"--- {part}: {' '.join(command)}", flush=True)
    last = "nothing said"
    process = subprocess.Popen([HERE / "run", *command], stdout=subprocess.PIPE, text=True)
    with process.stdout:
        for line in process.stdout:
            print(line, end="", flush=True)
            last = line.strip() or last
    return {0: "held", 77: "skipped"}.get(process.wait(), "BROKEN"), last


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--other", metavar="DIR", help="another version's build/bin")
    options = parser.parse_args()
    parts = options.parts or list(PARTS)
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(unknown)}")
    rows = []
    for part in parts:
        start = time.monotonic()
        held, last = run(part, options.other)
        rows.append((part, held, f"{time.monotonic() - start:.0f} s", last))
    print("--- soak")
    for part, held, took, last in rows:
        print(f"{part:<12}{held:<8}{took:>7}  {last}")
    return 1 if any(held == "BROKEN" for _, held, _, _ in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
