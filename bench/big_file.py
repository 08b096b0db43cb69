"""A big file in an image, and timed reads of it: what sequential_read.py and survive.py share."""

import gzip
import os
import pathlib
import random
import subprocess
import time

import oci


def drop_caches():
    subprocess.run(["sync"], check=True)
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("3\n")


def rate(size, *command):
    """MB/s of a command that moves `size` bytes."""
    start = time.monotonic()
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
    return size / (time.monotonic() - start) / 1e6


def read(path):
    return rate(os.stat(path).st_size, "dd", f"if={path}", "of=/dev/null", "bs=1M", "status=none")


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def write_image(disk, size):
    """disk/top/big, of bytes that nothing compresses, and an image of it at disk/image."""
    top = disk / "top"
    top.mkdir()
    generator = random.Random(1)
    with open(top / "big", "wb") as file:
        for _ in range(size >> 20):
            file.write(generator.randbytes(1 << 20))
    image = oci.Image(disk / "image")
    tar = oci.tar_directory(top)
    image.add_layer(tar, stored=gzip.compress(tar, 1, mtime=0))
    return image.finish()


def read_cold_and_warm(hydrant, mounted):
    """Of a mount that nobody has read: the rates of a cold read and of one with nothing but the page cache dropped, and
    what the cold one cost each daemon in seconds of CPU a GB."""
    size = os.stat(mounted).st_size
    daemons = {name: pid for name, pid in hydrant.daemons().items() if name in ("hydrantd", "hydrant-fetchd")}
    before = {name: cpu_seconds(pid) for name, pid in daemons.items()}
    figures = {"cold": read(mounted)}
    for name, pid in daemons.items():
        figures[name] = (cpu_seconds(pid) - before[name]) / size * 1e9
    drop_caches()
    figures["warm"] = read(mounted)
    return figures
