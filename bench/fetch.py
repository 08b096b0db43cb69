"""A big file over HTTP through shaped links (shaped_link.py): sequential against curl with its best number of parallel ranges, the
first byte, and random reads of 4 KiB, alone and while the rest of the file comes in the background. Times of single reads are in
round trips of the link too; moved is what the client's end of the link has received. Every row starts from an empty cache. Runs in a
network namespace of its own."""

import argparse
import contextlib
import os
import pathlib
import random
import statistics
import subprocess
import tempfile
import time

from sandbox import Hydrant, accepts, small_disk, wait_until
from shaped_link import SERVER, Link

LINKS = "1000:2,200:20,100:100"
SECONDS = 6  # that a sequential read takes at the link's rate
BIG = 1 << 30
READ = 4096
PARALLEL = (1, 4, 8)


def write(path, size):
    block = random.Random(1).randbytes(16 << 20)
    with open(path, "wb") as file:
        for at in range(0, size, len(block)):
            file.write(block[: min(len(block), size - at)])


@contextlib.contextmanager
def served(link, directory):
    (directory / "nginx.conf").write_text(f"""
        daemon off; pid nginx.pid; error_log error.log; user root;
        events {{ worker_connections 256; }}
        http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000;
               server {{ listen {SERVER}:80; root {directory}; }} }}""")
    server = subprocess.Popen([*link.prefix, "nginx", "-p", str(directory), "-c", "nginx.conf"], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: accepts(80, SERVER), 30, "nginx listens")
        yield f"http://{SERVER}"
    finally:
        server.terminate()
        server.wait()


def curl_seconds(url, size, parallel):
    part = -(-size // parallel)
    start = time.monotonic()
    clients = [subprocess.Popen(["curl", "-sf", "-o", "/dev/null", "-r", f"{at}-{min(at + part, size) - 1}", url])
               for at in range(0, size, part)]
    if any([client.wait() for client in clients]):
        raise SystemExit("fetch: curl failed")
    return time.monotonic() - start


class Mounted:
    def __init__(self, stack, url, *options):
        hydrant = stack.enter_context(Hydrant(base=stack.enter_context(small_disk(4096))))
        hydrant.ok("mount", "file:///etc/hostname", hydrant.new_dir())  # the daemons are up
        self.path = hydrant.new_dir() / "file"
        self.path.touch()
        hydrant.ok("mount", *options, url, self.path)

    def read_at(self, offset):
        """Seconds that it takes."""
        file = os.open(self.path, os.O_RDONLY)
        try:
            start = time.monotonic()
            if len(os.pread(file, READ, offset)) != READ:
                raise SystemExit("fetch: a short read")
            return time.monotonic() - start
        finally:
            os.close(file)


def sequential(link, url, size):
    best, parallel = min((curl_seconds(url, size, parallel), parallel) for parallel in PARALLEL)
    with contextlib.ExitStack() as stack:
        file = Mounted(stack, url)
        start = time.monotonic()
        subprocess.run(["dd", f"if={file.path}", "of=/dev/null", "bs=1M", "status=none"], check=True)
        ours = time.monotonic() - start
    print(f"  sequential, {size >> 20} MiB        {size / ours / 1e6:8.1f} MB/s   curl ({parallel} ranges) {size / best / 1e6:.1f}"
          f"   ratio {best / ours:.2f} (goal 0.95)", flush=True)


def first_byte(rtt, url):
    for where, offset in (("at the head", 0), ("in the middle", BIG // 2)):
        with contextlib.ExitStack() as stack:
            taken = Mounted(stack, url).read_at(offset)
        print(f"  first byte, {where:<13}  {taken * 1000:8.1f} ms     {taken * 1000 / rtt:.2f} round trips (goal 1.5)", flush=True)


def random_reads(link, rtt, url, count, *options):
    offsets = random.Random(11)
    with contextlib.ExitStack() as stack:
        file = Mounted(stack, url, *options)
        before = link.received()
        taken = sorted(file.read_at(offsets.randrange(BIG // READ) * READ) for _ in range(count))
        moved = link.received() - before
    middle, slow = statistics.median(taken), taken[len(taken) * 99 // 100]
    print(f"  random 4 KiB{', background' if options else '            '}   {middle * 1000:8.1f} ms     {middle * 1000 / rtt:.2f} round trips (goal 1.3)"
          f"   p99 {slow * 1000:.1f} ms   moved {moved / (count * READ):.0f} x", flush=True)
    return slow


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--links", default=LINKS, help="MBIT:MILLISECONDS of round trip, with commas between")
    parser.add_argument("--reads", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hydrant-bench-fetch-") as text:
        directory = pathlib.Path(text)
        directory.chmod(0o755)
        write(directory / "big", BIG)
        for rate, rtt in (map(int, spec.split(":")) for spec in options.links.split(",")):
            size = min(BIG, rate * 1000000 // 8 * SECONDS)
            write(directory / "part", size)
            with Link(rate, rtt) as link, served(link, directory) as server:
                print(link.name, flush=True)
                sequential(link, f"{server}/part", size)
                first_byte(rtt, f"{server}/big")
                alone = random_reads(link, rtt, f"{server}/big", options.reads)
                beside = random_reads(link, rtt, f"{server}/big", options.reads, "--background")
                print(f"  p99 beside the background  {beside / alone:8.2f} of alone (goal 1.15)", flush=True)


if __name__ == "__main__":
    main()
