"""Cuts the power of the cache's disk, and looks at what is left:
power.py [--cuts N] [--each N] [--brief] [--seed S] [--only KIND] [--limit SECONDS].

A workload runs on a disk that writes down every write and every flush (recorded_disk). Each cut replays the record up to
some place: what was flushed is there, and of what came after the last flush any part may be, sector by sector. The file system is
mounted, the daemons are started on it, and all images are mounted and read whole. The exit status is 0 when no byte was
wrong, nothing failed, and what was complete and synced before the cut is read without an origin.

Run it through tests/e2e/run's namespaces (tests/fault/run does)."""

import argparse
import bisect
import collections
import contextlib
import ctypes
import mmap
import os
import pathlib
import random
import shutil
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
import time

from origins import Origins, sha256
from sandbox import BIN, Hydrant, kill_all, wait_until

MEGA = 1 << 20
# What a disk writes whole. ext4 does not survive half a superblock, which is the first block.
SECTOR, BLOCK = 512, 4096
RECORD = struct.Struct("<QII")  # recorded_disk_main.cpp
DISK_SIZE = 320 * MEGA  # the least that xfs takes
# File system and mount options. A short commit interval makes more states to cut at.
KINDS = {"ext4": ("ext4", "commit=1"), "writeback": ("ext4", "commit=1,data=writeback"), "xfs": ("xfs", "")}


def call(*command):
    return subprocess.run([str(word) for word in command], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def unmount(point):
    """Even when somebody hangs on it, then later."""
    if subprocess.run(["umount", point], stderr=subprocess.DEVNULL).returncode != 0:
        subprocess.run(["umount", "-l", point], stderr=subprocess.DEVNULL)


@contextlib.contextmanager
def attached(file, point, options):
    """A file, mounted by way of a loop device that ends with its mount."""
    device = call("losetup", "--find", "--show", "--direct-io=on", file)
    try:
        call("mount", *(("-o", options) if options else ()), device, point)
    finally:
        call("losetup", "--detach", device)  # when it is let go of
    try:
        yield
    finally:
        unmount(point)


class RecordedDisk:
    """A fresh file system in `directory`; `point` is where it is mounted while `recording`."""

    def __init__(self, directory, kind):
        self.kind, (self.type, self.options) = kind, KINDS[kind]
        self.image, self.first, self.log = directory / "image", directory / "first", directory / "log"
        self.point = directory / "disk"
        self.point.mkdir()
        with open(self.first, "wb") as file:
            file.truncate(DISK_SIZE)
        if self.type == "xfs":
            call("mkfs.xfs", "-q", "-K", self.first)
        else:
            call("mkfs.ext4", "-q", "-b", "4096", "-m", "0", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0", self.first)
        call("cp", "--sparse=always", self.first, self.image)

    @contextlib.contextmanager
    def recording(self):
        served = self.image.with_name("served")
        served.touch()
        server = subprocess.Popen([BIN / "recorded_disk", self.image, self.log, served])
        try:
            wait_until(lambda: served.stat().st_size == DISK_SIZE, what="the recorded disk is there")
            with attached(served, self.point, self.options):
                yield
            # A loop device is let go of a moment after its mount.
            wait_until(lambda: subprocess.run(["umount", served], stderr=subprocess.DEVNULL).returncode == 0, what="nobody uses the disk")
            server.wait(10)
        finally:
            server.kill()
            server.wait()
            subprocess.run(["umount", "-l", served], stderr=subprocess.DEVNULL)

    def position(self):
        """What has been recorded so far, as a place to cut at or after."""
        return self.log.stat().st_size


class Replay:
    """The states that a cut can leave a disk in. Places are offsets in the log; they may only grow."""

    def __init__(self, disk, image):
        self.disk, self.image = disk, image
        with open(disk.log, "rb") as file:
            self.log = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        self.writes, self.flushes, self.places = [], [], []  # (offset, where its bytes are, size); numbers of writes before it
        at = 0
        while at < len(self.log):
            offset, size, is_flush = RECORD.unpack_from(self.log, at)
            at += RECORD.size
            if is_flush:
                self.flushes.append(len(self.writes))
            else:
                self.writes.append((offset, at, size))
                at += size
                self.places.append(at)
        self.settled = image.with_name("settled")
        call("cp", "--sparse=always", disk.first, self.settled)
        self.done = 0  # writes in `settled`

    def apply(self, file, write):
        offset, at, size = write
        os.pwrite(file, self.log[at:at + size], offset)

    def cut(self, number, choose):
        """Makes the image of a cut after so many writes. Says how it was made."""
        flushed = ([0] + self.flushes)[bisect.bisect_left(self.flushes, number)]  # a flush right there is not done
        file = os.open(self.settled, os.O_WRONLY)
        for write in self.writes[self.done:flushed]:
            self.apply(file, write)
        self.done = max(self.done, flushed)
        os.close(file)
        call("cp", "--sparse=always", self.settled, self.image)
        how = choose.choice(("all", "none", "writes", "sectors", "sectors"))
        file = os.open(self.image, os.O_WRONLY)
        for write in self.writes[flushed:number]:
            if how == "all" or how == "writes" and choose.random() < 0.5:
                self.apply(file, write)
            if how == "sectors":
                step = SECTOR if write[0] else BLOCK
                for piece in range(0, write[2], step):
                    if choose.random() < 0.5:
                        self.apply(file, (write[0] + piece, write[1] + piece, step))
        os.close(file)
        return f"write {number} of {len(self.writes)}, {number - flushed} after the last flush, {how} of them"


class Workload:
    """What people do: first mounts, lazy mounts, lists, room made, daemons ended and killed, and two readers all the while.
    Leaves everything as it is."""

    def __init__(self, hydrant, origins, disk, seed, options):
        self.hydrant, self.origins, self.disk, self.options = hydrant, origins, disk, options
        self.complete = []  # (from, to, name): cuts in between must leave it readable without an origin
        self.lock = threading.Lock()  # over `mounts`: a reader is in none that is taken down
        self.mounts = {}
        self.stopped = threading.Event()
        self.others = [threading.Thread(target=work, args=(random.Random(seed + number),))
                       for number, work in enumerate((self.read, self.read, self.write_back))]

    def run(self, brief):
        self.origins.log_in(self.hydrant)
        for other in self.others:
            other.start()
        try:
            self.first_day()
            if not brief:
                self.second_day()
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.hydrant.logs()}") from None
        finally:
            self.stopped.set()
            for other in self.others:
                other.join()

    def first_day(self):
        self.hydrant.start_daemons(*self.options)
        self.mount("streamed")
        self.mount("file")
        self.hydrant.ok("index", self.origins.sources["indexed"])
        self.mount("indexed", "--no-prefetch")
        self.while_maps_are_saved()
        self.hydrant.ok("record", self.mounts["indexed"])
        self.umount("streamed")
        call("sync", "--file-system", self.disk.point)
        synced = self.disk.position()
        self.while_maps_are_saved()
        self.umount("file")
        self.umount("indexed")
        self.stop()
        self.hydrant.start_daemons(*self.options)
        for name in ("indexed", "streamed", "file"):
            self.mount(name)
        self.while_maps_are_saved()
        self.complete.append((synced, self.disk.position(), "streamed"))

    def second_day(self):
        with self.lock:
            kill_all(*self.hydrant.daemons().values())
            for point in self.hydrant.image_mounts() + [str(self.hydrant.root / "blobs")]:
                subprocess.run(["umount", "-l", point], check=True)
            self.mounts.clear()
        self.hydrant.start_daemons(*self.options, "--quota", "12m")
        self.mount("indexed", "--background")
        self.mount("file")
        self.while_maps_are_saved()
        self.hydrant.ok("gc")  # of what is mounted, too
        self.mount("streamed")
        self.umount("file")
        self.hydrant.ok("gc", "--all")
        self.mount("file")
        self.while_maps_are_saved()

    def while_maps_are_saved(self):
        def written():
            with contextlib.suppress(FileNotFoundError):
                return {path: path.stat().st_ino for path in self.hydrant.root.glob("maps/*/*")}
        before = written()
        with contextlib.suppress(AssertionError):  # or nothing is read any more
            wait_until(lambda: written() != before, 4)

    def stop(self):
        self.hydrant.ok("stop")
        wait_until(lambda: not self.hydrant.daemons(), what="the daemons have ended")

    def mount(self, name, *options):
        directory = self.hydrant.mount(self.origins.sources[name], *options)
        with self.lock:
            self.mounts[name] = directory

    def umount(self, name):
        with self.lock:
            self.hydrant.ok("umount", self.mounts.pop(name))

    def read(self, choose):
        while not self.stopped.wait(choose.uniform(0, 0.05)):
            with self.lock:
                if not self.mounts:
                    continue
                name, directory = choose.choice(sorted(self.mounts.items()))
                path = directory / choose.choice(("big", *self.origins.content[name]) if name != "file" else ("oracle.bin",))
                with open(path, "rb", buffering=0) as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                    os.pread(file.fileno(), choose.choice((4096, 65536)), choose.randrange(1 + path.stat().st_size))

    def write_back(self, choose):
        """What the kernel does after half a minute: it writes data, in any order, without a flush."""
        sync_file_range = ctypes.CDLL(None).sync_file_range
        while not self.stopped.wait(choose.uniform(0, 0.2)):
            files = [os.path.join(folder, name) for part in ("cache", "maps", "fetch")
                     for folder, _, names in os.walk(self.hydrant.root / part) for name in names]
            for path in choose.sample(files, min(len(files), 3)):
                with contextlib.suppress(OSError), open(path, "rb") as file:
                    sync_file_range(file.fileno(), ctypes.c_int64(0), ctypes.c_int64(0), 2)


class Aftermath:
    """The daemons on what a cut has left."""

    def __init__(self, hydrant, origins, counts):
        self.hydrant, self.origins, self.counts = hydrant, origins, counts

    def check(self, options, offline):
        """What is wrong, as sentences."""
        self.wrong = []
        self.check_catalogue()
        if offline:
            self.hydrant.start_daemons(*options, prefix=("unshare", "--net"))
            for name in offline:
                self.read_whole(name)
                self.counts["read without an origin"] += 1
            self.end()
        self.hydrant.start_daemons(*options)
        for name in self.origins.sources:
            self.read_whole(name)
        self.end()
        return self.wrong

    def check_catalogue(self):
        """As SQLite itself sees it, on a copy."""
        with tempfile.TemporaryDirectory() as copy:
            for path in self.hydrant.root.glob("fetch/catalogue.db*"):
                shutil.copy(path, copy)
            if not os.listdir(copy):
                return
            with contextlib.closing(sqlite3.connect(f"{copy}/catalogue.db")) as database:
                if (told := database.execute("PRAGMA integrity_check").fetchall()) != [("ok",)]:
                    self.wrong.append(f"catalogue: {told}")

    def read_whole(self, name):
        directory = self.hydrant.new_dir()
        done = self.hydrant.run("mount", self.origins.sources[name], directory)
        if done.returncode != 0:
            self.wrong.append(f"{name} cannot be mounted: {done.stderr}")
            return
        if {path.name for path in directory.iterdir()} != set(self.origins.content[name]):
            self.wrong.append(f"{name}: {sorted(os.listdir(directory))[:5]}")
        good, wrong, failed = self.origins.look(name, directory)
        self.counts["files read"] += good
        self.wrong += wrong + failed
        self.hydrant.ok("umount", directory)
        directory.rmdir()

    def end(self):
        self.hydrant.ok("stop")
        wait_until(lambda: not self.hydrant.daemons(), what="the daemons have ended")


def one_disk(kind, seed, cuts, brief, until):
    """A workload, and `cuts` cuts of it; (counts, what was wrong)."""
    choose = random.Random(seed)
    counts, wrong = collections.Counter(), []
    # Half of them without the engine's own check, so that what a map says is all there is.
    options = ("--verify", ("engine", "fetchd")[seed % 2])
    with contextlib.ExitStack() as stack:
        directory = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hydrant-power-", dir="/dev/shm")))
        disk = RecordedDisk(directory, kind)
        origins = Origins(directory, choose)
        stack.callback(origins.close)
        with disk.recording(), Hydrant(root=disk.point / "root") as hydrant:
            workload = Workload(hydrant, origins, disk, seed, options)
            workload.run(brief)
            end = disk.position()  # what comes later is an orderly end
            hydrant.close()
        replay = Replay(disk, directory / "cut")
        last = bisect.bisect_right(replay.places, end)
        for number in sorted(choose.sample(range(last + 1), min(cuts, last))):
            if time.monotonic() > until:
                break
            how = replay.cut(number, choose)
            place = replay.places[number - 1] if number else 0
            offline = [name for begin, to, name in workload.complete if begin <= place <= to]
            with attached(replay.image, disk.point, disk.options), Hydrant(root=disk.point / "root") as hydrant:
                origins.log_in(hydrant)
                try:
                    told = Aftermath(hydrant, origins, counts).check(options, offline)
                except AssertionError as error:
                    told = [str(error)]
                counts["cuts"] += 1
                if told:
                    wrong.append(f"{kind}, seed {seed}, {how}: " + "; ".join(told) + "\n" + hydrant.logs())
    return counts, wrong


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cuts", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--each", type=int, default=50, help="cuts of one workload")
    parser.add_argument("--brief", action="store_true", help="half the workload")
    parser.add_argument("--only", choices=sorted(KINDS))
    parser.add_argument("--limit", type=int, default=3300, help="seconds; fewer cuts are then said")
    options = parser.parse_args()
    kinds = [options.only] if options.only else list(KINDS)
    start, seed = time.monotonic(), options.seed
    total, wrong = collections.Counter(), []
    while total["cuts"] < options.cuts and time.monotonic() < start + options.limit:
        kind = kinds[seed % len(kinds)]
        cuts = min(options.each, options.cuts - total["cuts"])
        counts, told = one_disk(kind, seed, cuts, options.brief, start + options.limit)
        total.update(counts)
        total[kind] += counts["cuts"]
        wrong += told
        seed += 1
    for text in wrong[:20]:
        print(text)
    for name, count in sorted(total.items()):
        print(f"  {name:<24}{count:>8}")
    print(f"{total['cuts']} power cuts, seeds {options.seed} to {seed - 1}: {len(wrong)} with something wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
