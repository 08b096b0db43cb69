"""What surviving costs, and how long it takes: hydrantd killed and upgraded under MOUNTS mounts, for each front; reads with a keeper
and with blocks checked by hydrantd against reads without; the same check on a cold read over a shaped link; the keeper's memory.

What is compared takes turns, ROUNDS times, on a fresh root each time; medians are printed, so other load on the machine falls on
all of them. It also makes what is no ratio worthless: a takeover needs some 20 ms of CPU, and on a machine that is busy each step of it
waits in the queue. So the kernel's accounting is printed beside it: what the new hydrantd ran and waited, and for how much of the time
somebody on the machine wanted a CPU and had none. Where that is most of it the goal is neither met nor missed. Runs in a
network namespace of its own."""

import argparse
import contextlib
import itertools
import json
import os
import pathlib
import select
import signal
import socket
import statistics
import threading
import time

import oci
from big_file import drop_caches, read_cold_and_warm, write_image
from sandbox import Hydrant, Registry, small_disk
from shaped_link import SERVER, Link

FILE = 4 << 20  # of each mount: several granules
PAGE = 4096
TAKEOVER_GOAL_MS, KEEPER_GOAL_KB, LINK_GOAL, STEADY_GOAL = 200, 1024, 0.10, 0.03
LINK = (1000, 2)
LIFE_S = 3  # how long daemons live before they are killed: a shorter life is followed by a pause
FIRST = 1 << 20  # at most what the first read of a file has had fetched
HYDRANTD, KEEPER = "hydrantd", "hydrant-keeper"


def children(pid):
    return {int(word) for word in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def milliseconds_since(start):
    return (time.monotonic() - start) * 1000


def medians(rounds):
    return {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}


def uncached(path, offset):
    """One page, past the page cache of the mount; milliseconds."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        start = time.monotonic()
        if len(os.pread(file, PAGE, offset)) != PAGE:
            raise SystemExit("survive: a short read")
        return milliseconds_since(start)
    finally:
        os.close(file)


def status(root):
    """hydrantd's, as soon as there is one: its listening socket outlives it, so that we wait in its backlog."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        client.connect(str(root / "run/hydrantd.sock"))
        client.sendall(b'{"op":"status"}\n')
        return json.loads(client.makefile().readline())


def on_cpu(pid):
    """Milliseconds that its threads ran, and that they waited for a CPU."""
    ran = waited = 0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            fields = (task / "schedstat").read_text().split()
            ran, waited = ran + int(fields[0]), waited + int(fields[1])
    return ran / 1e6, waited / 1e6


def wanting():
    """Milliseconds since the boot in which somebody on this machine wanted a CPU and had none; needs pressure stall information."""
    return int(pathlib.Path("/proc/pressure/cpu").read_text().split("total=")[1].split()[0]) / 1000


class Mounts:
    """Many mounts under one keeper, of each of which the first granule has been read."""

    def __init__(self, stack, front, count):
        disk = stack.enter_context(small_disk(1024 + 2 * count * (FILE >> 20)))
        self.hydrant = stack.enter_context(Hydrant(base=disk))
        sources = disk / "sources"
        sources.mkdir()
        noise = os.urandom(FILE)
        self.paths = []
        for number in range(count):
            source = sources / f"file{number}"
            source.write_bytes(noise)
            self.paths.append(self.hydrant.mount(f"file://{source}", "--front", front) / source.name)
            uncached(self.paths[-1], 0)
        self.next = 0

    def cold(self):
        """A file whose last page nobody has read."""
        path = self.paths[self.next]
        self.next += 1
        [device] = self.hydrant.ok("stat", "--json", path.parent)["devices"]
        if device["present"] >= device["size"]:
            raise SystemExit("survive: nothing of it is cold")
        return path

    def keeper_kilobytes(self):
        text = pathlib.Path(f"/proc/{self.hydrant.daemons()[KEEPER]}/status").read_text()
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmRSS:"))

    def killed(self):
        """Milliseconds from SIGKILL until each step of the next hydrantd is done."""
        path, daemons = self.cold(), self.hydrant.daemons()
        keeper, old = daemons[KEEPER], daemons[HYDRANTD]
        known, step, end = children(keeper), {}, os.pidfd_open(old)
        start, wanted = time.monotonic(), wanting()

        def read():
            uncached(path, FILE - PAGE)
            step["read"] = milliseconds_since(start)

        os.kill(old, signal.SIGKILL)
        reader = threading.Thread(target=read)
        reader.start()
        select.select([end], [], [], 30)
        os.close(end)
        step["gone"] = milliseconds_since(start)
        while not children(keeper) - known:
            time.sleep(0.0005)
        step["started"] = milliseconds_since(start)
        new = status(self.hydrant.root)["pid"]
        step["ready"], step["wanting"] = milliseconds_since(start), wanting() - wanted
        step["ran"], step["waited"] = on_cpu(new)
        reader.join()
        return step

    def upgraded(self):
        """Milliseconds that `hydrant upgrade` takes, and the longest that a read waited meanwhile."""
        cold, over, waits = self.cold(), threading.Event(), []

        def read():
            waits.append(uncached(cold, FILE - PAGE))
            for number in itertools.count():
                if over.is_set():
                    return
                waits.append(uncached(self.paths[number % len(self.paths)], number * PAGE % FIRST))

        reader = threading.Thread(target=read)
        reader.start()
        start = time.monotonic()
        self.hydrant.ok("upgrade")
        took = milliseconds_since(start)
        over.set()
        reader.join()
        return {"took": took, "read": max(waits)}


def takeovers(front, count, rounds):
    with contextlib.ExitStack() as stack:
        mounts = Mounts(stack, front, count)
        killed, upgraded = [], []
        for _ in range(rounds):
            time.sleep(LIFE_S)
            killed.append(mounts.killed())
            time.sleep(LIFE_S)
            upgraded.append(mounts.upgraded())
        keeper = mounts.keeper_kilobytes()
    step, upgrade = medians(killed), medians(upgraded)
    starting = step["ready"] - step["started"]
    print(f"{count} mounts, {front}: hydrantd killed\n"
          f"  ready after {step['ready']:.0f} ms (goal {TAKEOVER_GOAL_MS}), a cold read after {step['read']:.0f} ms\n"
          f"  of which the old one dies {step['gone']:.0f} ms, the keeper starts a new one {step['started'] - step['gone']:.0f} ms, "
          f"that one starts {starting:.0f} ms\n"
          f"  ({step['ran']:.0f} ms on a CPU, {step['waited']:.0f} ms waiting for one, of all its threads)\n"
          f"  the machine had no CPU to spare for {step['wanting']:.0f} of the {step['ready']:.0f} ms\n"
          f"  upgrade takes {upgrade['took']:.0f} ms; the longest read meanwhile {upgrade['read']:.0f} ms\n"
          f"  keeper: {keeper} KB resident (goal {KEEPER_GOAL_KB})", flush=True)


# How hydrantd is started: by a keeper, and who checks blocks.
def with_keeper(_):
    pass  # the first command starts it


def alone(checker):
    return lambda hydrant: hydrant.start_daemons("--verify", checker)


WAYS = {"keeper, engine": with_keeper, "alone, engine": alone("engine"), "alone, fetchd": alone("fetchd")}


def read_by(ways, reference, disk, rounds):
    """What each round read, for each way of starting hydrantd, in turns."""
    figures = {name: [] for name in ways}
    for turn in range(rounds):
        names = list(ways)
        for name in names[turn % len(names):] + names[:turn % len(names)]:
            with Hydrant(base=disk) as hydrant:
                ways[name](hydrant)
                hydrant.ok("index", "--plain-http", reference)
                directory = hydrant.new_dir()
                hydrant.ok("mount", "--plain-http", reference, directory)
                drop_caches()
                figures[name].append(read_cold_and_warm(hydrant, directory / "big"))
    return figures


def cpu(figures):
    return figures["hydrantd"] + figures["hydrant-fetchd"]


def ratio(ones, others, what):
    """Of two that took turns, each with its neighbour: the median, and how far apart the rounds are."""
    each = sorted(one[what] / other[what] for one, other in zip(ones, others))
    return f"{what} {statistics.median(each):.2f} ({each[0]:.2f} to {each[-1]:.2f})"


def steady(disk, image, rounds):
    with Registry() as registry:
        oci.push(image, registry.port, "big")
        got = read_by(WAYS, registry.name("big:latest"), disk, rounds)
    print("one big file, MB/s and seconds of CPU a GB of cold read (both daemons)")
    for name, each in ((name, medians(rounds)) for name, rounds in got.items()):
        print(f"  {name:<16} cold {each['cold']:>6.0f}   warm {each['warm']:>6.0f}   CPU {cpu(each):.2f}")
    keeper, engine, fetchd = (got[name] for name in WAYS)
    for what, one, other in (("a keeper", keeper, engine), ("the engine's check", engine, fetchd), ("both", keeper, fetchd)):
        print(f"  with {what} of without (goal {1 - STEADY_GOAL:.2f}): {ratio(one, other, 'cold')}, {ratio(one, other, 'warm')}")
    costs = statistics.median(cpu(one) - cpu(other) for one, other in zip(engine, fetchd))
    print(f"  the engine's check costs {costs:.2f} s of CPU a GB", flush=True)


def over_link(disk, image, rounds):
    ways = {name: WAYS[name] for name in ("alone, engine", "alone, fetchd")}
    with Link(*LINK) as link, Registry(address=SERVER, prefix=link.prefix) as registry:
        reference = registry.name("big:latest")
        link.push(image, reference)
        engine, fetchd = read_by(ways, reference, disk, rounds).values()
    rates = [f"{medians(each)['cold']:.0f} MB/s" for each in (engine, fetchd)]
    print(f"cold over {LINK[0]} Mbit/s + {LINK[1]} ms: checked by engine {rates[0]}, by fetchd {rates[1]}; "
          f"{ratio(engine, fetchd, 'cold')} (goal {1 - LINK_GOAL:.2f})", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mounts", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size-mb", type=int, default=256, help="of the file that is read")
    parser.add_argument("--only", choices=("takeover", "steady", "link"))
    options = parser.parse_args()
    if 2 * options.rounds > options.mounts:
        parser.error("each round takes two mounts that nobody has read")
    wanted = lambda part: options.only in (None, part)
    Link.run("ip", "link", "set", "lo", "up")
    if wanted("takeover"):
        for front in ("fuse", "fanotify"):
            takeovers(front, options.mounts, options.rounds)
    if wanted("steady") or wanted("link"):
        with small_disk(6144) as disk:
            write_image(disk, options.size_mb << 20)
            for part, run in (("steady", steady), ("link", over_link)):
                if wanted(part):
                    run(disk, disk / "image", options.rounds)


if __name__ == "__main__":
    main()
