"""Mounts and reads images from a registry that flips bits in what it sends, kills daemons meanwhile: liars.py [--rounds N]
[--seed S]. What is read is right or an error, and once the registry is honest again everything is right. The exit status is 0
when that held."""

import contextlib
import random
import sys
import threading

import rounds
from sandbox import Relay, kill_all, wait_until


class Liar(Relay):
    """Flips a bit in one of `one_in` pieces that it hands on; 0: in none."""

    def __init__(self, upstream_port, seed):
        self.one_in, self.random, self.lies = 0, random.Random(seed), 0
        super().__init__(upstream_port)

    def altered(self, data):
        if not self.one_in or self.random.randrange(self.one_in):
            return data
        self.lies += 1
        data = bytearray(data)
        data[self.random.randrange(len(data))] ^= 1 << self.random.randrange(8)
        return bytes(data)


class Round:
    def __init__(self, hydrant, origins, liar, seed, counts):
        self.hydrant, self.origins, self.liar, self.counts = hydrant, origins, liar, counts
        self.random = random.Random(seed)
        self.wrong = []
        self.done = threading.Event()

    def kill(self):
        while not self.done.wait(self.random.uniform(0.2, 2)):
            name = self.random.choice(("hydrantd", "hydrant-fetchd"))
            if pid := self.hydrant.daemons().get(name):
                kill_all(pid)
                self.counts["kills"] += 1

    def run(self):
        names = ("streamed", "indexed")
        self.hydrant.ok("index", self.origins.sources["indexed"])  # honestly, or not at all
        self.liar.one_in = self.random.choice((2, 20, 200))
        killer = threading.Thread(target=self.kill)
        killer.start()
        try:
            for name in self.random.choices(names, k=4):
                directory = self.hydrant.new_dir()
                if self.hydrant.run("mount", self.origins.sources[name], directory).returncode != 0:
                    self.counts["mounts refused"] += 1
                    continue
                good, wrong, failed = self.origins.look(name, directory)
                self.counts["files read"] += good
                self.counts["reads failed"] += len(failed)
                self.wrong += wrong
        finally:
            self.liar.one_in = 0
            self.done.set()
            killer.join()
        wait_until(lambda: self.hydrant.run("ls").returncode == 0, 30, "hydrantd is back")
        for name in names:
            good, wrong, failed = self.origins.look(name, self.hydrant.mount(self.origins.sources[name]))
            self.counts["files read"] += good
            self.wrong += wrong + [f"afterwards: {text}" for text in failed]
        return self.wrong


@contextlib.contextmanager
def lying(origins, _directory, options, counts):
    with Liar(origins.registry.port, options.seed) as liar:
        origins.go_by(liar.port)
        yield lambda hydrant, seed, counts: Round(hydrant, origins, liar, seed, counts)
        counts["lies"] = liar.lies


def summary(counts, options, wrong):
    return (f"{counts['lies']} lies of a registry, {counts['kills']} kills, seed {options.seed}: {wrong} of {options.rounds} rounds with "
            f"something wrong")


if __name__ == "__main__":
    sys.exit(rounds.run("liars", 150, lying, summary))
