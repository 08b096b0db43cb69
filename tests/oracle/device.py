#!/usr/bin/env python3
"""device.py: hydrant-fetchd serves images to a real kernel's EROFS over its cachefiles, in a guest, and is killed in the
middle of reads. What the guest's mounts showed must be what the images hold."""
import argparse
import hashlib
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "support"))
import guest
import images

PROGRAMS = ["bash", "cat", "find", "insmod", "ln", "mkdir", "mkfifo", "mount", "rm", "sed", "sha256sum", "sort", "sync", "tail", "tar",
            "umount"]
DEATHS = 5  # that the guest's init makes


def copy_program(root, path):
    """With the libraries it loads, under the names it has here."""
    libraries = subprocess.run(["ldd", path], stdout=subprocess.PIPE, text=True, check=True).stdout
    for word in libraries.split():
        if word.startswith("/"):
            target = root / word[1:]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(word, target)
    target = root / "usr/bin" / pathlib.Path(path).name
    shutil.copy(path, target)


def make_root(root, fetchd, kernel, data):
    for directory in ("usr/bin", "usr/lib", "usr/lib64"):
        (root / directory).mkdir(parents=True)
    for name in ("bin", "lib", "lib64"):
        (root / name).symlink_to("usr/" + name)
    for program in PROGRAMS:
        copy_program(root, shutil.which(program, path="/usr/bin:/bin:/usr/sbin:/sbin"))
    copy_program(root, fetchd)
    shutil.copytree(pathlib.Path(kernel).parent / "modules", root / "modules")
    shutil.copytree(data, root / "data", symlinks=True)
    shutil.copy(HERE / "device_init.sh", root / "init")
    (root / "init").chmod(0o755)


def make_data(data, trees):
    """What is served, and the tree that each must show."""
    dice = random.Random(3)
    app = trees / "app"
    app.mkdir(parents=True)
    for name, size in (("large", 6 << 20), ("odd", 12345), ("small", 100), ("empty", 0)):
        (app / name).write_bytes(dice.randbytes(size))
    data.mkdir()
    subprocess.run(["mkfs.erofs", "--quiet", data / "app.erofs", app], check=True, stdout=subprocess.DEVNULL)
    (trees / "single").mkdir()
    (data / "single").write_bytes(dice.randbytes((3 << 20) + 777))
    shutil.copy2(data / "single", trees / "single/single")
    (trees / "single/single").chmod(0o444)
    for name in ("many", "everything"):
        shutil.copytree(images.path(name), data / name)
        subprocess.run(["umoci", "raw", "unpack", "--image", f"{data / name}:latest", trees / name], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def sums(tree):
    """{path: digest} of the regular files."""
    found = {}
    for directory, _, names in os.walk(os.fsencode(tree)):
        for name in names:
            path = os.path.join(directory, name)
            if os.path.isfile(path) and not os.path.islink(path):
                with open(path, "rb") as file:
                    found[os.path.relpath(path, os.fsencode(tree))] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def shown_sums(text):
    lines = [line.partition(b"  ") for line in text.split(b"\0") if line]
    return {os.path.normpath(path): digest.decode() for digest, _, path in lines}


def listing(tree):
    """As the guest's init lists, without the root directory."""
    done = subprocess.run(["find", ".", "-mindepth", "1", "-printf", r"%P\t%y\t%m\t%U:%G\t%n\t%l\n"], cwd=tree, check=True,
                          stdout=subprocess.PIPE)
    return sorted(done.stdout.split(b"\n"))


def differences(shown, trees):
    for name, tree in (("app", "app"), ("many", "many"), ("everything", "everything"), ("single", "single"), ("again", "many")):
        expected, got = sums(trees / tree), shown_sums(shown.get(f"{name}.sums", b""))
        for path in sorted(expected.keys() | got.keys()):
            if expected.get(path) != got.get(path):
                yield f"{name}: {os.fsdecode(path)}: {got.get(path)}, not {expected.get(path)}"
        if name == "again" or name in ("app", "single"):
            continue
        got = sorted(line for line in shown.get(f"{name}.listing", b"").split(b"\n") if not line.startswith(b"\t"))
        for line in sorted(set(listing(trees / tree)) ^ set(got)):
            yield f"{name}: {line}"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fetchd", required=True, help="the hydrant-fetchd program")
    parser.add_argument("--keep", help="directory for what the guest said")
    args = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        make_data(work / "data", work / "trees")
        kernel = guest.build_kernel()
        make_root(work / "root", args.fetchd, kernel, work / "data")
        guest.pack(work / "root", work / "initramfs")
        with open(work / "cache.img", "wb") as disk, open(work / "out.tar", "wb") as out:
            disk.truncate(512 << 20)
            out.truncate(64 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", work / "cache.img"], check=True)
        said = guest.boot(kernel, work / "initramfs", [work / "cache.img", work / "out.tar"], memory=1536, processors=2)
        if args.keep:
            pathlib.Path(args.keep, "console").write_text(said)
            shutil.copy(work / "out.tar", args.keep)
        complaints = [line for line in said.split("\n") if line.startswith("! ") and line != "! end"]
        if "! end" not in said.split("\n"):
            complaints += ["the guest did not come to its end:", said[-3000:]]
            shown = {}
        else:
            with tarfile.open(work / "out.tar") as tar:
                shown = {os.path.normpath(entry.name): tar.extractfile(entry).read() for entry in tar if entry.isfile()}
        if shown:
            complaints += list(differences(shown, work / "trees"))[:20]
            deaths = shown["log"].count(b"killed while a reader waited")
            if deaths != DEATHS:
                complaints.append(f"a reader waited at {deaths} of {DEATHS} deaths")
        if complaints:
            print("\n".join(complaints))
            print(shown.get("log", b"").decode(errors="replace")[-5000:])
        else:
            files = sum(len(shown_sums(text)) for name, text in shown.items() if name.endswith(".sums"))
            print(f"device: the kernel read {files} files over {DEATHS} deaths of hydrant-fetchd, all as they are,"
                  f" {time.monotonic() - started:.0f} s")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
