"""Sequential throughput of a big file of a mount: cold against curl of the same bytes from the same server; warm (page
cache dropped, everything in Hydrant's cache), cached (page cache) and remounted (page cache dropped; the cache is complete,
so EROFS reads its file itself) against the same file on ext4. Cold, warm and what they are compared with take turns, ROUNDS
times, each cold read of a fresh root; the medians are printed, and what a cold read costs the two daemons in CPU time, which
other load on the machine does not change. With VERIFY=both each root comes twice, its blocks checked by hydrantd as well and by fetchd
alone."""

import gzip
import os
import pathlib
import random
import statistics
import subprocess
import time

import oci
from sandbox import Hydrant, Registry, small_disk

SIZE = int(os.environ.get("SIZE_MB", "256")) << 20
ROUNDS = int(os.environ.get("ROUNDS", "3"))
CACHED_READS = 5
CHECKERS = ("engine", "fetchd") if os.environ.get("VERIFY") == "both" else ("engine",)


def timed(*command, output=subprocess.DEVNULL):
    start = time.monotonic()
    subprocess.run(list(map(str, command)), check=True, stdout=output)
    return SIZE / (time.monotonic() - start) / 1e6


def drop_caches():
    subprocess.run(["sync"], check=True)
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("3\n")


def read(path):
    return timed("dd", f"if={path}", "of=/dev/null", "bs=1M", "status=none")


def read_cached(path):
    """The best of some: the first read of a cached page still moves it among the kernel's lists."""
    return max(read(path) for _ in range(CACHED_READS))


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(disk, reference, url, plain, checker, figures):
    def note(name, value):
        figures.setdefault(name, []).append(value)

    with Hydrant(base=disk) as hydrant:
        hydrant.start_daemons("--verify", checker)
        hydrant.ok("index", reference)
        mounted = hydrant.mount(reference) / "big"
        drop_caches()
        note("curl", timed("curl", "-sf", "-o", "/dev/null", url))
        daemons = hydrant.daemons()
        before = {name: cpu_seconds(pid) for name, pid in daemons.items()}
        note("cold", read(mounted))
        for name in ("hydrantd", "hydrant-fetchd"):
            note(name, (cpu_seconds(daemons[name]) - before[name]) / SIZE * 1e9)
        drop_caches()
        note("warm", read(mounted))
        note("cached", read_cached(mounted))
        hydrant.ok("umount", mounted.parent)
        mounted = hydrant.mount(reference) / "big"
        drop_caches()
        note("remounted", read(mounted))
        drop_caches()
        note("ext4 warm", read(plain))
        note("ext4 cached", read_cached(plain))


def main():
    figures = {checker: {} for checker in CHECKERS}
    with small_disk(6144) as disk, Registry() as registry:
        top = disk / "top"
        top.mkdir()
        generator = random.Random(1)
        with open(top / "big", "wb") as file:
            for _ in range(SIZE >> 20):
                file.write(generator.randbytes(1 << 20))
        image = oci.Image(disk / "image")
        tar = oci.tar_directory(top)
        image.add_layer(tar, stored=gzip.compress(tar, 1, mtime=0))
        image.finish()
        oci.push(image.directory, registry.port, "big")
        reference = registry.name("big:latest")
        url = f"http://127.0.0.1:{registry.port}/v2/big/blobs/{image.layers[0]['digest']}"
        for _ in range(ROUNDS):
            for checker in CHECKERS:
                measure(disk, reference, url, top / "big", checker, figures[checker])
    for checker in CHECKERS:
        print(f"checked by {checker}")
        show({name: statistics.median(values) for name, values in figures[checker].items()})


def show(middle):
    for label, other in (("cold", "curl"), ("warm", "ext4 warm"), ("remounted", "ext4 warm"), ("cached", "ext4 cached")):
        got, against = middle[label], middle[other]
        print(f"{label:<10}{got:>8.0f} MB/s{against:>8.0f} MB/s {other:<12}{got / against:>6.2f}")
    for name in ("hydrantd", "hydrant-fetchd"):
        print(f"cold: {name:<16}{middle[name]:>6.2f} ms of CPU a MB")


if __name__ == "__main__":
    main()
