"""Upgrades the daemons again and again under 32 readers that check every byte: upgrades.py [--count N] [--other DIR]. Every
second one is to the binaries in DIR, those of another version; by default to a copy of ours. The exit status is 0 when no reader
saw a wrong byte, a page of zeros or an error, and none hangs."""

import argparse
import pathlib
import shutil
import subprocess
import sys
import tempfile

from kills import Kills
from sandbox import BIN, Hydrant

PROGRAMS = ("hydrant", "hydrantd", "hydrant-fetchd", "hydrant-keeper")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--pages", type=int, default=65536)
    parser.add_argument("--other", type=pathlib.Path, help="a build's bin directory")
    options = parser.parse_args()
    failures = []
    with tempfile.TemporaryDirectory(prefix="hydrant-upgrades-") as copy, Hydrant() as hydrant:
        for name in PROGRAMS:
            shutil.copy((options.other or BIN) / name, copy)
        kills = Kills(hydrant, options.pages, seed=1)
        for number in range(options.count):
            program = pathlib.Path(copy) / "hydrant" if number % 2 == 0 else BIN / "hydrant"
            before = hydrant.daemons()
            done = subprocess.run([program, "upgrade", "--root", hydrant.root], env=hydrant.env, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True)
            after = hydrant.daemons()
            if done.returncode != 0 or set(after) != set(PROGRAMS[1:]) or set(before.values()) & set(after.values()):
                failures.append(f"upgrade {number + 1}: {done.returncode}: {done.stderr.strip()} {after}")
        seen = kills.result()
        logs = hydrant.logs()
    for text in failures[:10] + seen["errors"]:
        print("  " + text)
    bad = failures or any(seen[name] for name in ("wrong", "zeros", "failed", "short", "hung"))
    if bad:
        print(logs)
    told = ", ".join(f"{seen[name]} {name}" for name in ("wrong", "zeros", "failed", "short", "hung"))
    print(f"{options.count} upgrades under 32 readers, {'two versions' if options.other else 'one version, two places'}: "
          f"{len(failures)} failed; {told}; slowest read {seen['max']:.2f} s, p99.9 {seen['p99.9']:.2f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
