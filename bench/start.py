"""Time until a container is ready, and until everything in it has been read, against containerd's full pull of the same
gzip image, over links of two network namespaces (shaped_link.py). Rows take turns on each link; every one starts from an
empty ext4 and an empty page cache on the client's side, with its daemons up. Runs in a network namespace of its own.

Ready: numpy (or what --imports says) is imported in a container (runc in all rows). Moved: what the client's end of the link has received.
Read all: tar of the whole tree in a container, after ready, on the same state; its time counts from the beginning.
Shares: a part of the files, spread over the tree, is read in a container right after the pull, from an empty state again."""

import argparse
import contextlib
import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

from big_file import drop_caches
from sandbox import BUILD, Hydrant, Registry, small_disk, wait_until
from shaped_link import SERVER, Link

# GNU tar does not read what it would write to /dev/null.
READ_ALL = ("sh", "-c", "tar -cf - --one-file-system / 2> /dev/null | wc -c")
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
IMAGE = "bench/start"


def ready_when(imported):
    return ("python3", "-c", f"import {imported}; print('ready', flush=True)")


def read_share(percent):
    chosen = f"NR * {percent} % 100 < {percent}"
    return ("sh", "-c", f"find / -xdev -type f 2> /dev/null | sort | awk '{chosen}' | tr '\\n' '\\0' | xargs -0 cat 2> /dev/null | wc -c")


def first_line_at(command):
    """Runs a command to its end; yields its first line and when that came."""
    with subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline().strip()
        at = time.monotonic()
        process.stdout.read()
    if process.returncode != 0:
        raise SystemExit(f"start: {command}: exit status {process.returncode}")
    return line, at


class Containerd:
    """A full pull. ctr downloads all layers before it unpacks the first; clients that overlap the two are up to 15 % faster."""

    name = "containerd, full pull"

    def __init__(self, stack, reference):
        self.reference, self.disk = reference, stack.enter_context(small_disk(8192))
        self.socket = self.disk / "containerd.sock"
        configuration = self.disk / "containerd.toml"
        configuration.write_text(f"version = 2\nroot = '{self.disk}/root'\nstate = '{self.disk}/state'\n"
                                 f"disabled_plugins = ['io.containerd.grpc.v1.cri']\n[grpc]\naddress = '{self.socket}'\n")
        daemon = subprocess.Popen(["containerd", "-c", str(configuration), "-l", "error"], stdin=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL)
        stack.callback(lambda: (daemon.terminate(), daemon.wait()))
        wait_until(lambda: subprocess.run(self.ctr("version"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                   .returncode == 0, 30, "containerd answers")

    def ctr(self, *words):
        return ["ctr", "-a", str(self.socket), *words]

    def pull(self):
        subprocess.run(self.ctr("images", "pull", "--plain-http", self.reference), check=True, stdout=subprocess.DEVNULL)

    def run(self, *command):
        return first_line_at(self.ctr("run", "--rm", "--env", PATH, self.reference, f"bench{time.monotonic_ns()}", *command))


class Lazy:
    """A mount on an empty cache, with what `learned` (another root) knows of the image already: indexes, perhaps a list."""

    def __init__(self, stack, reference, name, learned=()):
        self.name, self.reference = name, reference
        self.hydrant = stack.enter_context(Hydrant(base=stack.enter_context(small_disk(8192))))
        for part in learned:
            shutil.copytree(part, self.hydrant.root / "fetch" / part.name)
        self.hydrant.ok("mount", "file:///etc/hostname", self.hydrant.new_dir())
        self.runs = 0

    def pull(self):
        self.directory = self.hydrant.new_dir()
        self.hydrant.ok("mount", "--plain-http", self.reference, self.directory)

    def run(self, *command):
        self.runs += 1
        bundle = self.hydrant.base / f"run{self.runs}"
        for part in ("upper", "work", "rootfs"):
            (bundle / part).mkdir(parents=True)
        subprocess.run(["mount", "-t", "overlay", "overlay", str(bundle / "rootfs"), "-o",
                        f"lowerdir={self.directory},upperdir={bundle}/upper,workdir={bundle}/work"], check=True)
        subprocess.run(["runc", "spec"], cwd=bundle, check=True)
        configuration = json.loads((bundle / "config.json").read_text())
        configuration["process"] |= {"args": list(command), "terminal": False, "env": [PATH]}
        configuration["root"]["readonly"] = False
        (bundle / "config.json").write_text(json.dumps(configuration))
        try:
            return first_line_at(["runc", "--root", bundle / "state", "run", "--bundle", bundle, f"bench{time.monotonic_ns()}"])
        finally:
            subprocess.run(["umount", str(bundle / "rootfs")], check=True)


def measure(row, link, ready):
    drop_caches()
    start, before = time.monotonic(), link.received()
    row.pull()
    mounted = time.monotonic()
    line, at = row.run(*ready)
    if line != "ready":
        raise SystemExit(f"start: {row.name}: the program did not run: {line!r}")
    moved = link.received() - before
    read_from = time.monotonic()
    size, _ = row.run(*READ_ALL)
    # Between the runs nothing is timed.
    all_read = at - start + time.monotonic() - read_from
    return {"mounted_s": mounted - start, "ready_s": at - start, "moved_bytes": moved, "all_s": all_read,
            "tar_bytes": int(size)}


def measure_share(row, percent):
    drop_caches()
    start = time.monotonic()
    row.pull()
    size, at = row.run(*read_share(percent))
    return at - start, int(size)


def compare_shares(rows, shares, rounds):
    for percent in shares:
        taken = {}
        for _ in range(rounds):
            for make in rows:
                with contextlib.ExitStack() as stack:
                    row = make(stack)
                    taken.setdefault(row.name, []).append(measure_share(row, percent))
        full = statistics.median(seconds for seconds, _ in taken[Containerd.name])
        for name, row in taken.items():
            seconds = statistics.median(seconds for seconds, _ in row)
            print(f"  {percent:>3} % of the files: {name:<22}{seconds:>8.2f}s{seconds / full:>9.2f} of full, {row[0][1] / 1e6:.0f} MB",
                  flush=True)


def tell(link, figures):
    medians = {name: {key: statistics.median(round[key] for round in taken) for key in taken[0]} for name, taken in figures.items()}
    full = medians[Containerd.name]
    print(f"{link.name:<24}{'mounted':>9}{'ready':>9}{'of full':>9}{'moved':>10}{'all read':>10}{'of full':>9}")
    for name, row in medians.items():
        print(f"  {name:<22}{row['mounted_s']:>8.2f}s{row['ready_s']:>8.2f}s{row['ready_s'] / full['ready_s']:>9.2f}"
              f"{row['moved_bytes'] / 1e6:>7.1f} MB{row['all_s']:>9.2f}s{row['all_s'] / full['all_s']:>9.2f}", flush=True)
    sizes = {row["tar_bytes"] for row in medians.values()}
    if max(sizes) - min(sizes) > 64 << 10:  # runtimes put a few files of their own below /etc and /dev
        sys.exit(f"start: the trees that were read differ in size: {sizes}")


def compare(link, image, rounds, ready, shares):
    figures = {}
    with contextlib.ExitStack() as outer:
        registry = outer.enter_context(Registry(address=SERVER, prefix=link.prefix))
        reference = registry.name(IMAGE) + ":latest"
        link.push(image, reference)
        with contextlib.ExitStack() as stack:
            teacher = Lazy(stack, reference, "learning")
            teacher.hydrant.ok("index", "--plain-http", reference)
            teacher.pull()
            teacher.run(*ready)
            teacher.hydrant.ok("record", teacher.directory)
            kept = pathlib.Path(outer.enter_context(small_disk(256)))
            for part in ("indexes", "prefetch"):
                shutil.copytree(teacher.hydrant.root / "fetch" / part, kept / part)
        rows = [lambda stack: Containerd(stack, reference),
                lambda stack: Lazy(stack, reference, "lazy, index", [kept / "indexes"]),
                lambda stack: Lazy(stack, reference, "lazy, index and list", [kept / "indexes", kept / "prefetch"]),
                lambda stack: Lazy(stack, reference, "lazy, first pull")]
        for _ in range(rounds):
            for make in rows:
                with contextlib.ExitStack() as stack:
                    row = make(stack)
                    figures.setdefault(row.name, []).append(measure(row, link, ready))
        tell(link, figures)
        # What a list knows of does not matter where files are read that nobody chose.
        compare_shares([rows[0], rows[1], rows[3]], shares, rounds)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--image", default=str(BUILD / "demo/oci"), help="OCI layout of one image")
    parser.add_argument("--links", default="none,1000:2,200:20", help="none, or MBIT:MILLISECONDS of round trip")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shares", default="10,30,60", help="percent of the files; empty for none")
    parser.add_argument("--imports", default="numpy", help="what the program imports: \"numpy, pandas\"")
    options = parser.parse_args()
    for spec in options.links.split(","):
        with Link(*(float(word) if "." in word else int(word) for word in spec.split(":")) if spec != "none" else ()) as link:
            compare(link, options.image, options.rounds, ready_when(options.imports),
                    [int(share) for share in options.shares.split(",") if share])


if __name__ == "__main__":
    main()
