"""Reads images whose registry gives tokens that soon expire, for as long as it is told, from an empty cache again and again, and
kills hydrant-fetchd now and then: tokens.py [--minutes M] [--lifetime SECONDS] [--seed S]. The exit status is 0 when every read
succeeded, every byte was right and tokens had expired under the reader."""

import argparse
import collections
import os
import pathlib
import random
import sys
import tempfile
import time

from origins import PASSWORD, USER, Origins
from sandbox import Hydrant, kill_all, wait_until
from token_service import TokenService

PIECE = 128 << 10


class Reader:
    def __init__(self, hydrant, origins, seed, until, lifetime):
        self.hydrant, self.origins, self.random, self.until = hydrant, origins, random.Random(seed), until
        self.lifetime = lifetime
        self.counts, self.wrong = collections.Counter(), []

    def over(self):
        return time.monotonic() > self.until

    def run(self):
        while not self.over():
            name = self.random.choice(("streamed", "indexed"))
            directory = self.hydrant.mount(self.origins.sources[name], "--no-prefetch")
            self.counts["mounts"] += 1
            self.slowly(directory / "big")
            if self.random.random() < 0.3:
                self.kill()
            good, wrong, failed = self.origins.look(name, directory)
            self.counts["files read"] += good
            self.wrong += wrong + failed
            self.hydrant.ok("umount", directory)
            self.hydrant.ok("gc", "--all")

    def slowly(self, path):
        """Pieces here and there, for one and a half lifetimes of a token: each is a request of its own."""
        size = path.stat().st_size
        places = list(range(0, size, PIECE))
        self.random.shuffle(places)
        pause = 1.5 * self.lifetime / len(places)
        with open(path, "rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
            for at in places:
                if self.over():
                    return
                try:
                    os.pread(file.fileno(), 4096, at)
                    self.counts["pieces read"] += 1
                except OSError as error:
                    self.wrong.append(f"{path.name} at {at}: {error}")
                time.sleep(pause)

    def kill(self):
        old = self.hydrant.daemons()["hydrant-fetchd"]
        kill_all(old)
        wait_until(lambda: self.hydrant.daemons().get("hydrant-fetchd", old) != old, 30, "hydrant-fetchd is back")
        self.counts["kills"] += 1


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=48)
    parser.add_argument("--lifetime", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hydrant-tokens-") as text, \
            TokenService(USER, PASSWORD, options.lifetime) as tokens:
        os.chmod(text, 0o755)
        with Origins(pathlib.Path(text), random.Random(options.seed), 0.5, tokens) as origins, Hydrant() as hydrant:
            origins.log_in(hydrant)
            hydrant.ok("index", origins.sources["indexed"])
            given = tokens.given
            reader = Reader(hydrant, origins, options.seed, time.monotonic() + 60 * options.minutes, options.lifetime)
            reader.run()
            if reader.wrong:
                print("\n".join(reader.wrong[:10]), hydrant.logs(), sep="\n")
            for name, count in sorted(reader.counts.items()):
                print(f"  {name:<24}{count:>8}")
            given = tokens.given - given
    print(f"{options.minutes:g} minutes with tokens of {options.lifetime} s, {given} given, seed {options.seed}: "
          f"{len(reader.wrong)} reads failed or wrong")
    return 1 if reader.wrong or given < 2 else 0


if __name__ == "__main__":
    sys.exit(main())
