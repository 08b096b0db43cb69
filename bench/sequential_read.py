"""Sequential throughput of a big file of a mount: cold against curl of the same bytes from the same server; warm (page
cache dropped, everything in Hydrant's cache), cached (page cache) and remounted (page cache dropped; the cache is complete,
so EROFS reads its file itself) against the same file on ext4. Cold, warm and what they are compared with take turns, ROUNDS
times, each cold read of a fresh root; the medians are printed, and what a cold read costs the two daemons in CPU time, which
other load on the machine does not change. With VERIFY=both each root comes twice, its blocks checked by hydrantd as well and by fetchd
alone."""

import os
import statistics

import oci
from big_file import drop_caches, rate, read, read_cold_and_warm, write_image
from sandbox import Hydrant, Registry, small_disk

SIZE = int(os.environ.get("SIZE_MB", "256")) << 20
ROUNDS = int(os.environ.get("ROUNDS", "3"))
CACHED_READS = 5
CHECKERS = ("engine", "fetchd") if os.environ.get("VERIFY") == "both" else ("engine",)


def read_cached(path):
    """The best of some: the first read of a cached page still moves it among the kernel's lists."""
    return max(read(path) for _ in range(CACHED_READS))


def measure(disk, reference, url, plain, checker, figures):
    def note(name, value):
        figures.setdefault(name, []).append(value)

    with Hydrant(base=disk) as hydrant:
        hydrant.start_daemons("--verify", checker)
        hydrant.ok("index", reference)
        mounted = hydrant.mount(reference) / "big"
        drop_caches()
        note("curl", rate(SIZE, "curl", "-sf", "-o", "/dev/null", url))
        for name, value in read_cold_and_warm(hydrant, mounted).items():
            note(name, value)
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
        image = write_image(disk, SIZE)
        oci.push(image.directory, registry.port, "big")
        reference = registry.name("big:latest")
        url = f"http://127.0.0.1:{registry.port}/v2/big/blobs/{image.layers[0]['digest']}"
        for _ in range(ROUNDS):
            for checker in CHECKERS:
                measure(disk, reference, url, disk / "top/big", checker, figures[checker])
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
