"""Damages files at rest: flips bits and cuts ends off in the cache, its maps and what hydrant-fetchd keeps, while no daemon runs
that ended in order: rot.py [--rounds N] [--seed S]. Then everything is mounted and read. The exit status is 0 when no byte was
wrong; what cannot be mounted must say so, and after `hydrant stop`, and the loss of what is only kept to be quick, be mounted.

The bytes of a single file have nothing to prove them, so its data are left alone."""

import contextlib
import os
import random
import shutil
import sys

import rounds
from sandbox import kill_all, wait_until

PARTS = ("cache", "maps", "fetch")


class Round:
    def __init__(self, hydrant, origins, seed, counts):
        self.hydrant, self.origins, self.counts = hydrant, origins, counts
        self.random = random.Random(seed)
        self.wrong = []

    def run(self):
        self.fill()
        kill_all(*sorted(self.hydrant.daemons().values()))
        for point in [*self.hydrant.image_mounts(), str(self.hydrant.root / "blobs")]:
            os.system(f"umount -l {point}")
        self.damage()
        for name in self.origins.sources:
            self.read(name)
        return self.wrong

    def fill(self):
        self.hydrant.start_daemons()
        self.hydrant.ok("index", self.origins.sources["indexed"])
        self.mounts = [self.hydrant.mount(source, "--no-prefetch") for source in self.origins.sources.values()]
        for name, directory in zip(self.origins.sources, self.mounts):
            good, wrong, failed = self.origins.look(name, directory)
            self.wrong += wrong + failed
        device = self.hydrant.ok("stat", "--json", self.mounts[list(self.origins.sources).index("file")])["devices"][0]["id"]
        self.left_alone = f"D{device}"
        os.sync()

    def damage(self):
        part = self.random.choice(PARTS)
        files = [path for path in (self.hydrant.root / part).rglob("*")
                 if path.is_file() and path.stat().st_size and path.name != self.left_alone]
        for path in self.random.sample(files, min(len(files), self.random.choice((1, 3, 20)))):
            size = path.stat().st_size
            with open(path, "r+b", buffering=0) as file:
                if self.random.random() < 0.3:
                    file.truncate(self.random.randrange(size))
                    self.counts["ends cut off"] += 1
                    continue
                for _ in range(self.random.choice((1, 8, 64))):
                    at = self.random.randrange(size)
                    [byte] = os.pread(file.fileno(), 1, at)
                    os.pwrite(file.fileno(), bytes([byte ^ 1 << self.random.randrange(8)]), at)
                    self.counts["bits flipped"] += 1
        self.counts[f"in {part}"] += 1

    def read(self, name):
        directory = self.hydrant.new_dir()
        done = self.hydrant.run("mount", self.origins.sources[name], directory)
        for _ in range(2):
            if done.returncode == 0:
                break
            if not done.stderr.startswith("hydrant: "):
                self.wrong.append(f"{name}: {done.stderr}")
            self.counts["refused"] += 1
            # What may be lost: it is made or fetched anew.
            self.hydrant.run("stop")
            wait_until(lambda: not self.hydrant.daemons(), 30, "the daemons have ended")
            self.refusal = done.stderr.strip()
            done = self.hydrant.run("mount", self.origins.sources[name], directory)
            if done.returncode != 0:
                shutil.rmtree(self.hydrant.root / "fetch", ignore_errors=True)
                self.counts["fetch/ deleted"] += 1
                print(f"  {name} took the loss of fetch/: {done.stderr.strip()}")
                done = self.hydrant.run("mount", self.origins.sources[name], directory)
        if done.returncode != 0:
            self.wrong.append(f"{name} cannot be mounted any more: {done.stderr}")
            return
        good, wrong, failed = self.origins.look(name, directory)
        self.counts["files read"] += good
        self.wrong += wrong + failed
        self.hydrant.ok("umount", directory)


@contextlib.contextmanager
def resting(origins, _directory, _options, _counts):
    yield lambda hydrant, seed, counts: Round(hydrant, origins, seed, counts)


def summary(counts, options, wrong):
    return (f"{options.rounds} caches damaged at rest, seed {options.seed}: {wrong} with something wrong, {counts['refused']} mounts "
            f"refused at first")


if __name__ == "__main__":
    sys.exit(rounds.run("rot", 200, resting, summary))
