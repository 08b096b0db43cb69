"""Sequential throughput of a big file of a mount: cold against curl of the same bytes from the same server, warm (page
cache dropped, everything in Hydrant's cache) and cached (page cache) against the same file on ext4."""

import gzip
import pathlib
import random
import subprocess
import time

import oci
from sandbox import Hydrant, Registry, small_disk

SIZE = 256 << 20


def timed(*command, output=subprocess.DEVNULL):
    start = time.monotonic()
    subprocess.run(list(map(str, command)), check=True, stdout=output)
    return SIZE / (time.monotonic() - start) / 1e6


def drop_caches():
    subprocess.run(["sync"], check=True)
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("3\n")


def read(path):
    return timed("dd", f"if={path}", "of=/dev/null", "bs=1M", "status=none")


def main():
    with small_disk(6144) as disk, Registry() as registry, Hydrant(base=disk) as hydrant:
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
        drop_caches()
        curl = timed("curl", "-sf", "-o", "/dev/null", url)
        hydrant.ok("index", reference)
        mounted = hydrant.mount(reference) / "big"
        drop_caches()
        cold = read(mounted)
        drop_caches()
        warm = read(mounted)
        cached = read(mounted)
        drop_caches()
        ext4_warm, ext4_cached = read(top / "big"), read(top / "big")
        for label, got, against, name in (("cold", cold, curl, "curl"), ("warm", warm, ext4_warm, "ext4"),
                                          ("cached", cached, ext4_cached, "ext4")):
            print(f"{label:<8}{got:>8.0f} MB/s{against:>8.0f} MB/s {name:<6}{got / against:>6.2f}")


if __name__ == "__main__":
    main()
