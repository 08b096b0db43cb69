"""Kills hydrant's processes at random moments while 32 readers read a file whose every byte is known, and counts what
the readers saw. kills.py [--kills N] [--seed S] [--pages P] [--only KIND] [--front FRONT] [--limit SECONDS] prints a table; its exit status is 0 when
no reader saw a wrong byte, a page of zeros or an error, and none hangs.

Run it through tests/e2e/run's namespaces (tests/fault/run does)."""

import argparse
import collections
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import oracle
from sandbox import Hydrant, wait_until

HYDRANTD, FETCHD, KEEPER = "hydrantd", "hydrant-fetchd", "hydrant-keeper"
# What is killed together, and how often of 10. A keeper is started again by its init system, here by us. Not in here: the
# keeper and hydrantd at once, for then nobody holds anything and readers get errors (test_takeover.py).
KINDS = {"hydrantd": ((HYDRANTD,), 4), "fetchd": ((FETCHD,), 2), "hydrantd+fetchd": ((HYDRANTD, FETCHD), 2),
         "keeper": ((KEEPER,), 1), "keeper+fetchd": ((KEEPER, FETCHD), 1)}

# Reads one page in a process of its own, and prints what came of that: zeros, bytes, or the number of an error.
ONE_PAGE = ("import os,sys\nf=os.open(sys.argv[1],os.O_RDONLY)\n"
            "try:\n d=os.pread(f,4096,int(sys.argv[2])*4096)\n print('zeros' if d==bytes(4096) else 'bytes')\n"
            "except OSError as e: print(e.errno)\n")


def reader_of_a_page(path, number):
    return subprocess.Popen(["/usr/bin/python3", "-c", ONE_PAGE, path, str(number)], stdout=subprocess.PIPE, text=True)


class Kills:
    def __init__(self, hydrant, pages, seed, readers=32, front="fuse"):
        self.hydrant, self.random = hydrant, random.Random(seed)
        self.counts = collections.Counter()
        self.takeovers = []
        source = hydrant.base / "oracle.bin"
        oracle.write(source, pages)
        self.directory = hydrant.mount(f"file://{source}", "--front", front)
        self.held = "fanotify" if front == "fanotify" else "/dev/fuse"
        self.path = self.directory / "oracle.bin"
        program = pathlib.Path(oracle.__file__)
        groups = [("pread", (readers - 4) // 4)] * 4 + [("mmap", 1)] * 4
        self.readers = [subprocess.Popen(["/usr/bin/python3", str(program), str(self.path), str(count), mode],
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
                        for mode, count in groups]

    def kill(self, kind):
        names, _ = KINDS[kind]
        old = self.hydrant.daemons()
        for name in names:
            try:
                if name in old:
                    os.kill(old[name], signal.SIGKILL)
            except ProcessLookupError:
                self.counts["gone by itself"] += 1
        start = time.monotonic()
        if KEEPER in names:
            # As init would. The lock of the dead one is free as soon as it is gone.
            wait_until(lambda: not pathlib.Path(f"/proc/{old[KEEPER]}").exists() or self.gone(old[KEEPER]), what="keeper ends")
            self.hydrant.start_keeper()
            # From here on a death of hydrantd is one that readers wait through.
            wait_until(self.keeper_holds, what="the new keeper holds what hydrantd holds")
        for name in names:
            wait_until(lambda: self.hydrant.daemons().get(name, old.get(name)) != old.get(name), 30, f"{name} is back")
        self.takeovers.append(time.monotonic() - start)
        self.counts[kind] += 1

    def keeper_holds(self):
        keeper = self.hydrant.daemons().get(KEEPER)
        try:
            return keeper and any(self.held in os.readlink(fd) for fd in pathlib.Path(f"/proc/{keeper}/fd").iterdir())
        except OSError:
            return False

    @staticmethod
    def gone(pid):
        try:
            return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
        except OSError:
            return True

    def storm(self, kills, only=None, until=None):
        kinds = [only] if only else list(KINDS)
        weights = [KINDS[kind][1] for kind in kinds]
        for _ in range(kills):
            if until and time.monotonic() > until:
                break
            time.sleep(self.random.uniform(0, 1))  # any moment will do
            self.kill(self.random.choices(kinds, weights)[0])

    def result(self):
        """Stops the readers; what all of them saw."""
        for reader in self.readers:
            reader.stdin.close()
        total = collections.Counter()
        errors, slowest = [], []
        for reader in self.readers:
            with reader.stdout:
                text = reader.stdout.read()
            if reader.wait(120) != 0:
                total["failed"] += 1
                errors.append(f"a reader ended with {reader.returncode}")
                continue
            seen = json.loads(text)
            errors += seen.pop("errors")
            slowest += seen.pop("slowest")
            total.update(seen)
        total = dict(total)
        slowest.sort()
        keep = total["reads"] // 1000
        total["p99.9"] = slowest[-keep - 1] if keep < len(slowest) else slowest[0]
        total["max"] = slowest[-1]
        total["errors"] = errors[:5]
        return total


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pages", type=int, default=65536)
    parser.add_argument("--only", choices=sorted(KINDS))
    parser.add_argument("--front", choices=("fuse", "fanotify"), default="fuse")
    parser.add_argument("--limit", type=int, default=3300, help="seconds; fewer kills are then said")
    options = parser.parse_args()
    with Hydrant() as hydrant:
        kills = Kills(hydrant, options.pages, options.seed, front=options.front)
        kills.storm(options.kills, options.only, time.monotonic() + options.limit)
        seen = kills.result()
        logs = hydrant.logs()
    for kind, count in sorted(kills.counts.items()):
        print(f"  {kind:<18}{count:>8}")
    for name in ("reads", "pages"):
        print(f"  {name:<18}{seen[name]:>8}")
    for error in seen["errors"]:
        print("  " + error)
    # Under fanotify a read may come back short when hydrantd dies (docs/decisions/017-fanotify.md), but never wrong.
    bad = any(seen[name] for name in ("wrong", "zeros", "failed", "hung") + (("short",) if options.front == "fuse" else ()))
    if bad:
        print(logs)
    told = ", ".join(f"{seen[name]} {name}" for name in ("wrong", "zeros", "failed", "short", "hung"))
    print(f"{sum(kills.counts[kind] for kind in KINDS)} kills under 32 readers, seed {options.seed}: {told}; "
          f"slowest read {seen['max']:.2f} s, p99.9 {seen['p99.9']:.2f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
