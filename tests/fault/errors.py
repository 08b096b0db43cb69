"""Makes the daemons' writes fail, with ENOSPC, EIO and EDQUOT, and their descriptors run out, while images are mounted and
read: errors.py [--rounds N] [--seed S]. What is read is right or an error, whatever failed; and when nothing fails any more
everything is mounted and read, by the same daemons or by new ones. The exit status is 0 when that held."""

import contextlib
import errno
import os
import random
import resource
import struct
import sys

import rounds
from sandbox import BUILD, wait_until

ERRORS = ("ENOSPC", "EIO", "EDQUOT", "EMFILE")


class FailingDisk:
    """The control file of failing_disk.cpp."""

    def __init__(self, path):
        self.file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        self.set(0, 0)
        os.pwrite(self.file, bytes(4), 8)
        self.env = {"LD_PRELOAD": str(BUILD / "lib/libfailing_disk.so"), "HYDRANT_FAILING_DISK": str(path)}

    def set(self, one_in, error):
        os.pwrite(self.file, struct.pack("<II", one_in, error), 0)

    def failures(self):
        return struct.unpack("<I", os.pread(self.file, 4, 8))[0]


def limit_descriptors(hydrant, spare):
    """They may open `spare` more; without it, as many as they like."""
    for pid in hydrant.daemons().values():
        with contextlib.suppress(OSError):
            used = max(map(int, os.listdir(f"/proc/{pid}/fd")))
            hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard if spare is None else used + 1 + spare, hard))


class Round:
    def __init__(self, hydrant, origins, disk, seed, counts):
        self.hydrant, self.origins, self.disk, self.counts = hydrant, origins, disk, counts
        self.random = random.Random(seed)
        self.error = ERRORS[seed % len(ERRORS)]
        self.wrong = []

    def start(self):
        self.hydrant.ok("index", self.origins.sources["indexed"])  # starts the keeper and the daemons

    def run(self):
        self.start()
        # Mounts that were there before anything failed; what they show is read while writes fail.
        before = {name: self.hydrant.mount(self.origins.sources[name], "--no-prefetch")
                  for name in self.random.sample(list(self.origins.sources), self.random.randrange(3))}
        if self.error == "EMFILE":
            limit_descriptors(self.hydrant, self.random.choice((0, 1, 2, 4, 8)))
        else:
            self.disk.set(self.random.choice((2, 5, 20, 100, 500)), getattr(errno, self.error))
        try:
            for name, directory in before.items():
                self.look(name, directory)
            for name in self.random.choices(list(self.origins.sources), k=4):
                self.try_one(name, self.random.choice(((), ("--background",), ("--no-prefetch",))))
                if self.random.random() < 0.3:
                    self.hydrant.run("gc", "--all")
        finally:
            self.disk.set(0, 0)
            limit_descriptors(self.hydrant, None)
        self.counts[self.error] += 1
        self.nothing_fails_any_more()
        return self.wrong

    def try_one(self, name, options):
        directory = self.hydrant.new_dir()
        done = self.hydrant.run("mount", "--timeout", "60", *options, self.origins.sources[name], directory)
        self.counts["mounted" if done.returncode == 0 else "refused"] += 1
        if done.returncode == 0:
            self.look(name, directory)
        # As any mount of daemons that may be gone: by force when need be.
        if self.hydrant.run("umount", "--lazy", directory).returncode != 0 and os.path.ismount(directory):
            os.system(f"umount -l {directory}")

    def look(self, name, directory):
        good, wrong, failed = self.origins.look(name, directory)
        self.counts["files read"] += good
        self.counts["reads failed"] += len(failed)
        self.wrong += wrong

    def start_anew(self):
        self.hydrant.run("stop")
        wait_until(lambda: not self.hydrant.daemons(), 30, "the daemons have ended")
        self.counts["started anew"] += 1

    def nothing_fails_any_more(self):
        anew = self.random.random() < 0.5 or self.hydrant.run("ls").returncode != 0
        if anew:
            self.start_anew()
        for name, source in self.origins.sources.items():
            directory = self.hydrant.new_dir()
            done = self.hydrant.run("mount", source, directory)
            if done.returncode != 0 and not anew:  # a cache whose label failed has died
                self.start_anew()
                anew = True
                done = self.hydrant.run("mount", source, directory)
            if done.returncode != 0:
                self.wrong.append(f"{name} cannot be mounted afterwards: {done.stderr}")
                continue
            good, wrong, failed = self.origins.look(name, directory)
            self.wrong += wrong + [f"afterwards: {text}" for text in failed]
            self.hydrant.ok("umount", directory)


@contextlib.contextmanager
def failing(origins, directory, _options, counts):
    disk = FailingDisk(directory / "failing")

    def make(hydrant, seed, counts):
        return Round(hydrant, origins, disk, seed, counts)

    make.env = disk.env
    yield make
    counts["writes that failed"] = disk.failures()


def summary(counts, options, wrong):
    return (f"{options.rounds} rounds, {counts['writes that failed']} writes failed, seed {options.seed}: {wrong} with something wrong")


if __name__ == "__main__":
    sys.exit(rounds.run("errors", 200, failing, summary))
