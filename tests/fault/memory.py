"""Gives each daemon 128 MB, makes many mounts, and reads all of them at random places: memory.py [--mounts N] [--seconds S]. The exit
status is 0 when every byte was right, no read failed, and no daemon was killed for its memory. Exits with 77 where there are no
memory control groups."""

import argparse
import contextlib
import os
import pathlib
import random
import sys
import tempfile
import threading
import time

import oracle
from sandbox import Hydrant

LIMIT = 128 << 20
FILES = 8


class Group:
    """A control group of one process, of version 1 or 2."""

    def __init__(self, name, pid):
        v1 = pathlib.Path("/sys/fs/cgroup/memory")
        self.two = not (v1 / "memory.limit_in_bytes").exists()
        self.path = (pathlib.Path("/sys/fs/cgroup") if self.two else v1) / f"hydrant-{os.getpid()}-{pid}-{name}"
        self.path.mkdir()
        try:
            self.file("memory.max", "memory.limit_in_bytes").write_text(str(LIMIT))
            (self.path / "cgroup.procs").write_text(str(pid))
        except OSError:
            self.path.rmdir()
            raise

    def file(self, two, one):
        return self.path / (two if self.two else one)

    def kills(self):
        text = self.file("memory.events", "memory.oom_control").read_text()
        return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill "))

    def peak(self):
        with contextlib.suppress(OSError):
            return int(self.file("memory.peak", "memory.max_usage_in_bytes").read_text())
        return 0

    def close(self):
        for pid in (self.path / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                (self.path.parent / "cgroup.procs").write_text(pid)
        self.path.rmdir()


class Storm:
    """Readers of random pages of random mounts."""

    def __init__(self, paths, pages):
        self.paths, self.pages = paths, pages
        self.end = threading.Event()
        self.reads, self.wrong, self.errors = 0, 0, []
        self.threads = [threading.Thread(target=self.run, args=(random.Random(seed),)) for seed in range(16)]
        for thread in self.threads:
            thread.start()

    def run(self, choose):
        while not self.end.is_set():
            number, path = choose.choice(self.paths)
            at = choose.randrange(self.pages)
            try:
                file = os.open(path, os.O_RDONLY)
                try:
                    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
                    data = os.pread(file, 4096, at * 4096)
                finally:
                    os.close(file)
            except OSError as error:
                self.errors.append(str(error))
                continue
            self.reads += 1
            self.wrong += data != oracle.page(number * self.pages + at)

    def stop(self):
        self.end.set()
        for thread in self.threads:
            thread.join()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mounts", type=int, default=500)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--pages", type=int, default=16384, help="of each file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hydrant-memory-") as directory, Hydrant() as hydrant, contextlib.ExitStack() as stack:
        os.chmod(directory, 0o755)
        sources = []
        for number in range(FILES):
            path = pathlib.Path(directory) / f"file{number}"
            with open(path, "wb", buffering=1 << 20) as file:
                for page in range(options.pages):
                    file.write(oracle.page(number * options.pages + page))
            sources.append(path)
        hydrant.ok("umount", hydrant.mount(f"file://{sources[0]}"))  # the daemons run
        daemons = hydrant.daemons()
        groups = {}
        try:
            for name, pid in daemons.items():
                groups[name] = Group(name, pid)
                stack.callback(groups[name].close)
        except OSError as error:
            print(f"no memory control groups here: {error}")
            return 77
        paths, failed = [], []
        storm = None
        for number in range(options.mounts):
            source = number % FILES
            mountpoint = hydrant.new_dir()
            done = hydrant.run("mount", "--no-prefetch", f"file://{sources[source]}", mountpoint)
            if done.returncode != 0:
                failed.append(done.stderr.strip())
                continue
            paths.append((source, mountpoint / sources[source].name))
            storm = storm or Storm(paths, options.pages)
        time.sleep(options.seconds)
        storm.stop()
        kills = {name: group.kills() for name, group in groups.items()}
        peaks = {name: group.peak() >> 20 for name, group in groups.items()}
        lived = hydrant.daemons() == daemons
        logs = hydrant.logs()
        for name, pid in daemons.items():
            with contextlib.suppress(OSError):
                rss = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 >> 20
                print(f"  {name:<18} resident {rss:>4} MB, with its page cache at most {peaks[name]:>4} MB, killed {kills[name]} times")
    for text in (failed + storm.errors)[:10]:
        print("  " + text)
    bad = failed or storm.errors or storm.wrong or not lived or any(kills.values())
    if bad:
        print(logs)
    print(f"{len(paths)} mounts, 128 MB for each daemon: {storm.reads} random reads, {storm.wrong} wrong, {len(storm.errors)} failed, "
          f"{len(failed)} mounts failed; the daemons {'lived' if lived else 'DIED'}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
