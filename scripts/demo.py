"""Pulls and unpacks a real image in full, mounts the same image lazily, and compares: time to ready (the first program in
it has imported numpy), bytes moved, and in the end the whole tree. Run by demo.sh.

Bytes are what the registry says it sent (its access log). Every row starts from an empty directory on a file system of
its own and with dropped page caches; the full pull keeps what it downloads and unpacks on that file system too."""

import argparse
import contextlib
import json
import pathlib
import shutil
import subprocess
import sys
import time

import oci
from sandbox import BUILD, SOURCE, Hydrant, Registry, small_disk

READY = "import numpy; a = numpy.arange(12.0).reshape(3, 4); print('ready', numpy.linalg.norm(a @ a.T))"


def drop_caches():
    subprocess.run(["sync"], check=True)
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("3\n")


@contextlib.contextmanager
def writable(lower, scratch):
    """An overlay on a read-only tree, with /proc and /dev, as a container would have it."""
    for name in ("upper", "work", "merged"):
        (scratch / name).mkdir(parents=True)
    merged = scratch / "merged"
    options = f"lowerdir={lower},upperdir={scratch}/upper,workdir={scratch}/work"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(merged)], check=True)
    subprocess.run(["mount", "-t", "proc", "proc", str(merged / "proc")], check=True)
    subprocess.run(["mount", "--bind", "/dev", str(merged / "dev")], check=True)
    try:
        yield merged
    finally:
        subprocess.run(["umount", "-R", "-l", str(merged)], check=True)


def run_ready(tree, scratch):
    with writable(tree, scratch) as merged:
        done = subprocess.run(["chroot", str(merged), "python3", "-c", READY], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0 or not done.stdout.startswith("ready"):
        raise SystemExit(f"demo: the program did not run: {done.stdout!r}")


class Row:
    """One way to get the image, measured. `disk` is where it may keep things."""

    def __init__(self, label, registry, disk):
        self.label, self.registry, self.disk = label, registry, disk
        self.steps = {}
        drop_caches()
        self.start, self.before = time.monotonic(), registry.bytes_sent()

    def step(self, name):
        self.steps[name] = time.monotonic() - self.start

    def done(self):
        self.ready = time.monotonic() - self.start
        self.bytes = self.registry.bytes_sent() - self.before
        return self


def full_pull(registry, reference, disk):
    row = Row("full pull and unpack", registry, disk)
    subprocess.run(["skopeo", "--insecure-policy", "copy", "-q", "--src-tls-verify=false", f"docker://{reference}",
                    f"oci:{disk}/oci:demo"], check=True)
    row.step("pull")
    subprocess.run(["umoci", "raw", "unpack", "--image", f"{disk}/oci:demo", str(disk / "rootfs")], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    row.step("mount")
    run_ready(disk / "rootfs", disk / "scratch")
    return row.done()


def lazy_mount(label, registry, reference, hydrant, indexed, learned_by=None):
    if indexed:
        hydrant.ok("index", reference)
        hydrant.ok("ls")
    if learned_by:
        shutil.copytree(learned_by.root / "fetch/prefetch", hydrant.root / "fetch/prefetch")
    directory = hydrant.new_dir()
    row = Row(label, registry, hydrant.base)
    row.told = hydrant.ok("mount", "--json", reference, directory)
    row.step("mount")
    run_ready(directory, hydrant.base / "scratch")
    row.done()
    row.directory = directory
    return row


def resident_megabytes(hydrant):
    figures = {}
    for name, pid in hydrant.daemons().items():
        for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                figures[name] = int(line.split()[1]) / 1024
    return figures


def same_tree(expected, actual):
    compare = SOURCE / "tests/support/compare_trees.py"
    return subprocess.run([sys.executable, str(compare), str(expected), str(actual)]).returncode == 0


def print_table(rows, stored):
    full = rows[0]
    print()
    print(f"{'':<28}{'mounted':>9}{'ready':>9}{'of full':>9}{'moved':>11}{'of image':>10}")
    for row in rows:
        print(f"{row.label:<28}{row.steps['mount']:>8.2f}s{row.ready:>8.2f}s{row.ready / full.ready:>8.0%} "
              f"{row.bytes / 1e6:>7.1f} MB{row.bytes / stored:>10.0%}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--image", default=str(BUILD / "demo/oci"), help="OCI layout to show")
    parser.add_argument("--json", action="store_true", help="print figures for bench/")
    options = parser.parse_args()
    say = (lambda *_: None) if options.json else print

    manifest = json.loads((pathlib.Path(options.image) / "blobs/sha256" /
                           oci.manifest_descriptor(options.image)["digest"][7:]).read_text())
    stored = sum(layer["size"] for layer in manifest["layers"])
    with contextlib.ExitStack() as stack:
        registry = stack.enter_context(Registry())
        oci.push(options.image, registry.port, "demo")
        reference = registry.name("demo:latest")
        say(f"the image: {len(manifest['layers'])} gzip layers, {stored / 1e6:.1f} MB, at {reference}")

        def fresh_disk():
            return stack.enter_context(small_disk(6144))

        say("full pull and unpack (skopeo, umoci), then python3 -c 'import numpy …' in a chroot")
        full = full_pull(registry, reference, fresh_disk())
        hydrants = [stack.enter_context(Hydrant(base=fresh_disk())) for _ in range(3)]
        say("hydrant index once, then a lazy mount on an empty cache, then the same program")
        lazy = lazy_mount("lazy mount, with index", registry, reference, hydrants[0], indexed=True)
        memory = resident_megabytes(hydrants[0])
        hydrants[0].ok("record", lazy.directory)
        say("the same on another empty cache, with the list of what that start has read")
        listed = lazy_mount("lazy mount, index and list", registry, reference, hydrants[2], indexed=True,
                            learned_by=hydrants[0])
        say("a first mount without an index, then the same program")
        first = lazy_mount("first mount, no index", registry, reference, hydrants[1], indexed=False)

        rows = [full, lazy, listed, first]
        if not options.json:
            print_table(rows, stored)
            print("memory: " + ", ".join(f"{name} {size:.1f} MB" for name, size in sorted(memory.items())))
        verdicts = {row.label: same_tree(full.disk / "rootfs", row.directory) for row in (lazy, listed, first)}
        if options.json:
            print(json.dumps({"stored_bytes": stored, "memory_mb": memory, "same_tree": all(verdicts.values()),
                              "rows": {row.label: {"mounted_s": row.steps["mount"], "ready_s": row.ready,
                                                   "bytes": row.bytes} for row in rows}}, indent=2))
        else:
            for label, same in verdicts.items():
                print(f"whole tree, {label}: {'equals' if same else 'DIFFERS FROM'} what was unpacked")
    sys.exit(0 if all(verdicts.values()) else 1)


if __name__ == "__main__":
    main()
