"""A file whose every byte is computable, and readers of it that check all they read.

As a program: oracle.py FILE READERS MODE reads random places of FILE until its input closes, then prints what it saw as
JSON. MODE is pread, or mmap (one reader: a page fault holds the interpreter)."""

import hashlib
import json
import mmap
import os
import random
import sys
import threading
import time

PAGE = 4096
ZEROS = bytes(PAGE)


def page(number):
    return hashlib.blake2b(number.to_bytes(8, "little")).digest() * (PAGE // 64)


def write(path, pages):
    with open(path, "wb", buffering=1 << 20) as file:
        for number in range(pages):
            file.write(page(number))


class Readers:
    def __init__(self, path):
        self.path = path
        self.pages = os.stat(path).st_size // PAGE
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.seen = {"reads": 0, "pages": 0, "wrong": 0, "zeros": 0, "failed": 0, "short": 0, "errors": []}
        self.times = []

    def run(self, seed, read):
        choose = random.Random(seed)
        while not self.stop.is_set():
            count = choose.choice((1, 1, 1, 2, 8, 32, 256))
            first = choose.randrange(self.pages - count)
            start = time.monotonic()
            try:
                data, error = read(first, count), None
            except OSError as failure:
                data, error = b"", f"page {first}+{count}: {failure}"
            took = time.monotonic() - start
            with self.lock:
                self.seen["reads"] += 1
                self.times.append(took)
                if error or len(data) != count * PAGE:
                    self.seen["failed"] += 1
                    self.seen["errors"] = (self.seen["errors"] + [error or f"page {first}+{count}: {len(data)}"])[:5]
                    continue
                self.seen["pages"] += count
                for index in range(count):
                    piece = data[index * PAGE:(index + 1) * PAGE]
                    self.seen["wrong"] += piece != page(first + index)
                    self.seen["zeros"] += piece == ZEROS

    def pread(self):
        file = os.open(self.path, os.O_RDONLY)

        def read(first, count):
            # What the kernel holds would be read from nobody.
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            data = os.pread(file, count * PAGE, first * PAGE)
            # As programs do; whether it may happen at all is for the test to say.
            while data and len(data) < count * PAGE:
                with self.lock:
                    self.seen["short"] += 1
                more = os.pread(file, count * PAGE - len(data), first * PAGE + len(data))
                if not more:
                    break
                data += more
            return data
        return read

    def mmap(self):
        file = os.open(self.path, os.O_RDONLY)

        def read(first, count):
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            with mmap.mmap(file, count * PAGE, prot=mmap.PROT_READ, offset=first * PAGE) as mapped:
                return mapped[:]
        return read


def main():
    path, count, mode = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    readers = Readers(path)
    threads = [threading.Thread(target=readers.run, args=((mode, number).__repr__(), getattr(readers, mode)()), daemon=True)
               for number in range(count)]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    readers.stop.set()
    deadline = time.monotonic() + 90
    for thread in threads:
        thread.join(max(0, deadline - time.monotonic()))
    seen = readers.seen
    seen["hung"] = sum(thread.is_alive() for thread in threads)
    seen["slowest"] = sorted(readers.times)[-2000:]
    print(json.dumps(seen), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
