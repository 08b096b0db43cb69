"""Mounts, reads, unmounts, makes room and, in the last third, kills, for as long as it is told: churn.py [--minutes M] [--seed S].
Now and then everything is put down, and counted: descriptors and memory of each process, bytes and files under the root. The exit
status is 0 when every byte was right and the last counts are like those after the first tenth."""

import argparse
import collections
import contextlib
import os
import pathlib
import random
import statistics
import sys
import tempfile
import time

from origins import MEGA, Origins
from sandbox import Hydrant, kill_all, wait_until

PROCESSES = ("hydrantd", "hydrant-fetchd", "hydrant-keeper")
# What is not growth: a table that got its second page, a log line.
SPARE = {"descriptors": 4, "memory": 6 * MEGA, "disk": MEGA, "files": 3}


class Churn:
    def __init__(self, hydrant, origins, seed):
        self.hydrant, self.origins, self.random = hydrant, origins, random.Random(seed)
        self.counts, self.wrong, self.samples = collections.Counter(), [], []
        self.mounts = []

    def step(self, kills):
        action = self.random.choices(("mount", "read", "umount", "gc", "kill"), (4, 6, 3, 1, 1 if kills else 0))[0]
        if action == "mount" and len(self.mounts) < 8:
            name = self.random.choice(list(self.origins.sources))
            options = self.random.choice(((), ("--no-prefetch",), ("--background",)))
            self.mounts.append((name, self.hydrant.mount(self.origins.sources[name], *options)))
        elif action == "read" and self.mounts:
            good, wrong, failed = self.origins.look(*self.random.choice(self.mounts))
            self.counts["files read"] += good
            self.wrong += wrong + failed
        elif action == "umount" and self.mounts:
            self.umount(self.mounts.pop(self.random.randrange(len(self.mounts))))
        elif action == "gc":
            self.hydrant.ok("gc", *self.random.choice((("--all",), ("--at-most", "2m"))))
        elif action == "kill":
            self.kill(self.random.choice(PROCESSES[:2]))
        else:
            return
        self.counts[action] += 1

    def umount(self, mount):
        self.hydrant.ok("umount", mount[1])
        mount[1].rmdir()

    def kill(self, name):
        old = self.hydrant.daemons()[name]
        kill_all(old)
        wait_until(lambda: self.hydrant.daemons().get(name, old) != old and self.hydrant.run("ls").returncode == 0, 30, f"{name} is back")

    def sample(self):
        while self.mounts:
            self.umount(self.mounts.pop())
        # What was unmounted is let go of a moment later.
        wait_until(lambda: self.hydrant.ok("gc", "--all", "--json")["usage"] < MEGA / 2, 20, "nothing is used any more")
        counted = {"disk": 0, "files": 0}
        for folder, names, files in os.walk(self.hydrant.root):
            if "blobs" in names:
                names.remove("blobs")
            for name in files:
                path = os.path.join(folder, name)
                with contextlib.suppress(OSError):
                    if not path.endswith((".log", "-wal", "-shm")):
                        counted["disk"] += os.lstat(path).st_blocks * 512
                        counted["files"] += 1
        for name, pid in self.hydrant.daemons().items():
            counted[f"{name} descriptors"] = len(os.listdir(f"/proc/{pid}/fd"))
            pages = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1])
            counted[f"{name} memory"] = pages * os.sysconf("SC_PAGESIZE")
        self.samples.append(counted)

    def growth(self, first, last):
        """What the samples [last:] have more than those [first:first+n], beyond SPARE; by the medians."""
        n = max(1, len(self.samples) - last)
        out = {}
        for what in self.samples[first]:
            before = statistics.median(sample[what] for sample in self.samples[first:first + n])
            after = statistics.median(sample.get(what, 0) for sample in self.samples[last:])
            if after - before > SPARE[what.split()[-1]]:
                out[what] = (before, after)
        return out


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=55)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    seconds = options.minutes * 60
    with tempfile.TemporaryDirectory(prefix="hydrant-churn-") as directory, Hydrant() as hydrant:
        os.chmod(directory, 0o755)
        with Origins(pathlib.Path(directory), random.Random(options.seed), 0.25) as origins:
            origins.log_in(hydrant)
            churn = Churn(hydrant, origins, options.seed)
            hydrant.ok("index", origins.sources["indexed"])
            start = time.monotonic()
            # Memory and descriptors are those of processes that live on; the disk's are what kills must not leave either.
            for kills, until in ((False, 2 / 3), (True, 1)):
                while time.monotonic() < start + seconds * until:
                    for _ in range(20):
                        churn.step(kills)
                    churn.sample()
                if not kills:
                    steady = len(churn.samples)
                    grown = churn.growth(steady // 10, steady - max(1, steady // 5))
            left = {what: seen for what, seen in churn.growth(steady - 1, len(churn.samples) - 1).items() if what in ("disk", "files")}
            logs = hydrant.logs()
    for text in churn.wrong[:10]:
        print("  " + text)
    for name, count in sorted(churn.counts.items()):
        print(f"  {name:<24}{count:>8}")
    for what, value in churn.samples[-1].items():
        print(f"  {what:<28}{churn.samples[0].get(what, 0):>12}{churn.samples[steady - 1].get(what, 0):>12}{value:>12}")
    bad = churn.wrong or grown or left
    if bad:
        print(logs)
    print(f"{options.minutes:.0f} minutes of churn, {churn.counts['mount']} mounts, {churn.counts['kill']} kills: {len(churn.wrong)} wrong or "
          f"failed; " + (f"grown: {grown | left}" if grown or left else "descriptors, memory and disk are flat"))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
