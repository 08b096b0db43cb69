"""The images that end-to-end tests mount. Made of this machine's own Debian packages and of trees that hold one of
everything a tar archive can say; cached in the build tree, because making them takes seconds."""

import hashlib
import os
import pathlib
import random
import shutil
import stat
import subprocess
import sys
import tempfile

import oci
from sandbox import BUILD

# What bash, coreutils and Python need, and nothing else.
PACKAGES = """base-files bash coreutils debianutils grep libacl1 libattr1 libbz2-1.0 libc6 libc-bin libcrypt1 libexpat1 libffi8
    libgmp10 liblzma5 libpcre2-8-0 libpython3.11-minimal libpython3.11-stdlib libselinux1 libssl3 libtinfo6 libuuid1
    python3.11-minimal tar zlib1g""".split()
LEFT_OUT = ("/usr/share/doc/", "/usr/share/man/", "/usr/share/locale/", "/usr/share/lintian/")


def copy_packages(target):
    """The files of PACKAGES as dpkg installed them here, in the merged-/usr layout."""
    for name in ("usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "proc", "dev", "sys", "tmp", "root", "etc", "work"):
        (target / name).mkdir(parents=True, exist_ok=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (target / name).symlink_to("usr/" + name)
    paths = subprocess.run(["dpkg", "-L", *PACKAGES], check=True, stdout=subprocess.PIPE, text=True).stdout.split("\n")
    for path in sorted(set(filter(None, paths))):
        if any(path.startswith(prefix) for prefix in LEFT_OUT) or not os.path.lexists(path):
            continue
        real = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        into = target / real[1:]
        if into.is_symlink() or into.is_dir():
            continue
        if os.path.isdir(real) and not os.path.islink(real):
            into.mkdir(parents=True, exist_ok=True)
        else:
            into.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "-a", "--", real, str(into)], check=True)
    shutil.copy2("/usr/bin/python3.11", target / "usr/bin/python3")


def text_file(path, text, mode=0o644):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def whiteout(path):
    text_file(path.parent / (".wh." + path.name), "")


def layer_of_changes(top):
    """On top of the packages: new files, and things that later layers take away."""
    for directory in ("srv/gone", "srv/opaque/deep", "srv/kept", "srv/becomes-file", "srv/again"):
        for number in range(20):
            text_file(top / directory / f"f{number:02}", f"{directory} {number}\n" * (number * 50 + 1))
    text_file(top / "srv/becomes-dir", "a file\n")
    (top / "srv/becomes-plain").symlink_to("kept")
    text_file(top / "srv/changed", "old\n" * 5000)
    data = random.Random(1).randbytes(6 << 20)
    (top / "srv/random.bin").write_bytes(data)


def layer_of_removals(top):
    whiteout(top / "srv/gone")
    whiteout(top / "srv/kept/f03")
    whiteout(top / "srv/again")
    whiteout(top / "srv/never-there")
    text_file(top / "srv/opaque/.wh..wh..opq", "")
    text_file(top / "srv/opaque/new", "the only one\n")
    text_file(top / "srv/becomes-file", "now a file\n")
    text_file(top / "srv/becomes-dir/inside", "now a directory\n")
    text_file(top / "srv/becomes-plain", "now a file\n")
    text_file(top / "srv/changed", "new\n" * 7000, 0o600)
    whiteout(top / "usr/bin/tac")


def layer_of_returns(top):
    text_file(top / "srv/again/back", "again\n")
    text_file(top / "srv/gone/back", "gone and back\n")
    text_file(top / "srv/kept/f03", "another f03\n")
    os.utime(top / "srv/kept/f03", ns=(1_600_000_000_123456789, 1_600_000_000_987654321))
    (top / "srv").chmod(0o751)


def layer_of_everything(top):
    """One of everything: links, holes, long names, odd owners, xattrs, devices, big directories."""
    text_file(top / "links/one", "three names\n")
    os.link(top / "links/one", top / "links/two")
    (top / "links/sub").mkdir()
    os.link(top / "links/one", top / "links/sub/three")
    (top / "links/relative").symlink_to("../links/one")
    (top / "links/long").symlink_to("x" * 1000)

    with open(make(top / "sparse/holes"), "wb") as file:
        file.truncate(40 << 20)
        for offset in (0, 5 << 20, (5 << 20) + 4096 * 3 + 17, (39 << 20) + 5):
            file.seek(offset)
            file.write(b"island at %d\n" % offset * 500)
    with open(top / "sparse/all-hole", "wb") as file:
        file.truncate(3 << 20)
    with open(top / "sparse/tail-hole", "wb") as file:
        file.write(b"head" * 3000)
        file.truncate(1 << 20)

    deep = top / "long"
    for number in range(8):
        deep = deep / (f"directory-{number}-" + "n" * 60)
    text_file(deep / ("f" * 255), "the longest name there is\n")
    text_file(top / "long" / ("ü" * 127), "not ASCII\n")
    text_file(top / "long/with space\tand tab", "blank\n")

    text_file(top / "xattr/ping", "#!/bin/sh\n", 0o755)
    capability = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw+ep, revision 2
    os.setxattr(top / "xattr/ping", "security.capability", capability)
    text_file(top / "xattr/user", "x\n")
    os.setxattr(top / "xattr/user", "user.first", b"1")
    os.setxattr(top / "xattr/user", "user.binary", bytes(range(256)))
    os.setxattr(top / "xattr", "user.on-a-directory", b"yes")

    text_file(top / "owners/big", "x\n")
    os.chown(top / "owners/big", 3_000_000, 70_000)
    text_file(top / "owners/setuid", "x\n", 0o644)
    os.chown(top / "owners/setuid", 33, 33)
    (top / "owners/setuid").chmod(0o4755)
    (top / "owners/sticky").mkdir()
    (top / "owners/sticky").chmod(0o1777)
    (top / "owners/closed").mkdir(mode=0o000)

    (top / "nodes").mkdir()
    os.mkfifo(top / "nodes/fifo", 0o640)
    os.mknod(top / "nodes/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(top / "nodes/disk", stat.S_IFBLK | 0o660, os.makedev(259, 1_000_000))

    text_file(top / "sizes/empty", "")
    for size in (1, 4095, 4096, 4097, 65536, 1 << 20):
        (top / f"sizes/{size}").write_bytes(random.Random(size).randbytes(size))
    (top / "sizes/compressible").write_bytes(b"0123456789abcdef" * (1 << 20))
    (top / "many").mkdir()
    for number in range(3000):
        (top / f"many/entry-{number:05}").write_bytes(b"" if number % 3 else b"%d\n" % number)
    old = 1_000_000_000
    os.utime(top / "sizes/1", (old, old))
    os.utime(top / "sizes", ns=(old * 10**9 + 5, old * 10**9 + 7))


def make(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def build_all(directory):
    with tempfile.TemporaryDirectory(dir=directory) as work:
        tars = {}
        for name, fill in (("packages", copy_packages), ("changes", layer_of_changes), ("removals", layer_of_removals),
                           ("returns", layer_of_returns), ("everything", layer_of_everything)):
            top = pathlib.Path(work) / name
            top.mkdir()
            fill(top)
            tars[name] = oci.tar_directory(top)
        write(directory / "one", [tars["packages"]])
        write(directory / "many", [tars[name] for name in ("packages", "changes", "removals", "returns")])
        write(directory / "everything", [tars["everything"]])
        small = pathlib.Path(work) / "small"
        text_file(small / "hello", "hello\n")
        (small / "data").write_bytes(random.Random(2).randbytes(3 << 20))
        write(directory / "small", [oci.tar_directory(small)])


def write(directory, tars):
    image = oci.Image(directory)
    for tar in tars:
        image.add_layer(tar)
    image.finish()


def path(name):
    """The layout of image `name`: one, many, everything or small."""
    inputs = b"".join(pathlib.Path(source).read_bytes() for source in (__file__, oci.__file__))
    place = BUILD / "e2e-images" / hashlib.sha256(inputs).hexdigest()[:16]
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        fresh = pathlib.Path(tempfile.mkdtemp(dir=place.parent))
        build_all(fresh)
        try:
            fresh.rename(place)
        except OSError:  # another test was faster
            shutil.rmtree(fresh)
    return place / name


if __name__ == "__main__":
    print(path(sys.argv[1] if len(sys.argv) > 1 else "one"))
