#!/usr/bin/env python3
"""Archives made by GNU tar and bsdtar, turned into EROFS images and mounted by the kernel, equal what tar unpacks.
Usage: image_test.py BUILD_IMAGE. Needs root, erofs-utils and a kernel with file-backed EROFS; run it in a mount
namespace of its own. Skips with status 77 and the reason."""
import ctypes
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import unittest

BUILD_IMAGE = ""
COMPARE = pathlib.Path(__file__).parent.parent / "support" / "compare_trees.py"
SYS_FSOPEN, SYS_FSCONFIG, SYS_FSMOUNT, SYS_MOVE_MOUNT = 430, 431, 432, 429
libc = ctypes.CDLL(None, use_errno=True)


def call(number, *args):
    result = libc.syscall(number, *args)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def mount_erofs(image, devices, target):
    context = call(SYS_FSOPEN, b"erofs", 1)
    try:
        call(SYS_FSCONFIG, context, 1, b"source", os.fsencode(image), 0)
        for device in devices:
            call(SYS_FSCONFIG, context, 1, b"device", os.fsencode(device), 0)
        call(SYS_FSCONFIG, context, 0, b"ro", None, 0)
        call(SYS_FSCONFIG, context, 6, None, None, 0)
        mount = call(SYS_FSMOUNT, context, 1, 0)
        try:
            call(SYS_MOVE_MOUNT, mount, b"", -100, os.fsencode(target), 4)
        finally:
            os.close(mount)
    finally:
        os.close(context)


def run(*command, **options):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **options)
    if done.returncode != 0:
        raise AssertionError(f"{command}: {done.stdout}{done.stderr}")
    return done.stdout + done.stderr


class ImageTest(unittest.TestCase):
    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="hydrant-image-", dir="/var/tmp"))
        self.mounts = []
        self.addCleanup(self.clean)

    def clean(self):
        for target in self.mounts:
            subprocess.run(["umount", str(target)], check=True)
        shutil.rmtree(self.dir)

    def sub(self, name):
        path = self.dir / name
        path.mkdir()
        return path

    def make_tree(self, plain=False):
        """A tree with everything tar can carry; `plain` keeps to what V7 can."""
        tree = self.sub("tree")
        rng = random.Random(5)
        for name, size in (("empty", 0), ("one", 1), ("block", 4096), ("odd", 70001), ("big", 3 << 20)):
            (tree / name).write_bytes(rng.randbytes(size))
        (tree / "dir").mkdir(mode=0o750)
        for i in range(600):
            (tree / "dir" / f"file-{i:04}").write_bytes(b"x" * i)
        (tree / "sort").mkdir()
        for name in ("!a", "+x", "-y", ".hidden", "..dots", "a", "a.b", "ä", "Z"):
            (tree / "sort" / name).write_text(name)
        os.symlink("../somewhere", tree / "link")
        os.link(tree / "odd", tree / "dir" / "odd-again")
        os.chmod(tree / "one", 0o4711)
        os.chown(tree / "block", 1234, 5678)
        os.utime(tree / "big", ns=(0, 1_600_000_000 * 10**9))
        if not plain:
            os.symlink("t" * 90, tree / "dir" / "longer-link")
            os.mkfifo(tree / "fifo")
            os.mknod(tree / "null", 0o600 | 0o020000, os.makedev(1, 3))
            os.mknod(tree / "block-device", 0o640 | 0o060000, os.makedev(259, 70000))
            os.chmod(tree / "sort", 0o1777)
        return tree

    def enrich(self, tree):
        """What only GNU and pax can carry."""
        deep = tree
        for i in range(12):
            deep = deep / (f"{i:02}" + "d" * 40)
            deep.mkdir()
        (deep / ("n" * 255)).write_text("deep")
        os.symlink("s" * 1500, tree / "long-symlink")
        os.symlink("s" * 4090, tree / "longest-symlink")
        with open(tree / "sparse", "wb") as file:
            for i in range(30):
                file.seek(i * 128 * 1024)
                file.write(bytes([65 + i]) * 5000)
            file.truncate(6 << 20)
        with open(tree / "hole", "wb") as file:
            file.truncate(8 << 20)
        with open(tree / "tail-hole", "wb") as file:
            file.write(b"head")
            file.truncate(1 << 20)

    def check(self, archives, *tar_options, tool="tar", compare=()):
        """Builds, runs fsck, mounts, and compares with what `tool` unpacks."""
        expected = self.sub("expected")
        for archive in archives:
            run(tool, "-xpf", archive, "-C", expected, *tar_options)
        self.check_against(archives, expected, compare)

    def check_against(self, archives, expected, compare=()):
        out, again, mounted = self.sub("out"), self.sub("again"), self.sub("mounted")
        count = int(run(BUILD_IMAGE, out, 1 << 20, *archives))
        devices = [out / f"device.{i + 1}" for i in range(count)]
        run(BUILD_IMAGE, again, 997, *archives)
        for i, device in enumerate(devices):
            self.assertEqual(device.read_bytes(), (again / f"device.{i + 1}").read_bytes())
        flags = [f"--device={device}" for device in devices]
        # The exit status of fsck.erofs 1.5 stays 0 for some errors.
        said = run("fsck.erofs", "--extract", *flags, out / "image.erofs")
        self.assertNotIn("<E>", said)
        self.assertNotIn("<W>", said)
        self.assertNotIn("<E>", run("dump.erofs", "-s", *flags, out / "image.erofs"))
        mount_erofs(out / "image.erofs", devices, mounted)
        self.mounts.append(mounted)
        run(sys.executable, COMPARE, *compare, expected, mounted)

    def gnu_tar(self, form, *options):
        tree = self.make_tree(plain=form == "v7")
        if form in ("oldgnu", "gnu", "pax"):
            self.enrich(tree)
        archive = self.dir / "a.tar"
        run("tar", "--format", form, *options, "-cf", archive, "-C", tree, ".")
        self.check([archive])

    def bsdtar(self, form):
        tree = self.make_tree(plain=form == "v7")
        if form in ("gnutar", "pax"):
            self.enrich(tree)
        archive = self.dir / "a.tar"
        run("bsdtar", "--format", form, "-cf", archive, "-C", tree, ".")
        # bsdtar leaves the time of the directory it unpacks into.
        self.check([archive], tool="bsdtar", compare=["--ignore-root-mtime"])

    def test_xattrs(self):
        tree = self.sub("tree")
        for i in range(6):
            path = tree / f"file{i}"
            path.write_text("x")
            os.setxattr(path, "user.shared", b"the same for all")
            os.setxattr(path, "user.own", str(i).encode())
        os.setxattr(tree / "file1", "user.large", bytes(range(250)) * 10)
        os.setxattr(tree / "file2", "user.empty", b"")
        os.setxattr(tree / "file3", "trusted.t", b"\0\1")
        capability = bytes.fromhex("0100000200040000000000000000000000000000")
        os.setxattr(tree / "file4", "security.capability", capability)
        os.setxattr(tree, "user.root", b"r")
        archive = self.dir / "a.tar"
        run("tar", "--format", "pax", "--xattrs", "--xattrs-include=*", "-cf", archive, "-C", tree, ".")
        self.check([archive], "--xattrs", "--xattrs-include=*")
        bsd = self.dir / "b.tar"
        run("bsdtar", "--format", "pax", "--xattrs", "-cf", bsd, "-C", tree, ".")
        self.clean_results()
        self.check([bsd], "--xattrs", tool="bsdtar", compare=["--ignore-root-mtime"])

    def clean_results(self):
        for target in self.mounts:
            subprocess.run(["umount", str(target)], check=True)
        self.mounts.clear()
        for name in ("expected", "out", "again", "mounted"):
            shutil.rmtree(self.dir / name)

    def test_layers_with_whiteouts(self):
        lower, upper, expected = self.sub("lower"), self.sub("upper"), self.sub("expected")
        for root in (lower, expected):
            (root / "kept").mkdir()
            (root / "opaque").mkdir()
            (root / "target").write_text("linked from above")
        for name in ("gone", "opaque/old", "kept/old"):
            (lower / name).write_text(name)
        (lower / "gone-dir").mkdir()
        (lower / "gone-dir" / "file").write_text("x")
        (expected / "kept" / "old").write_text("kept/old")
        for root in (upper, expected):
            (root / "opaque").mkdir(exist_ok=True)
            (root / "opaque" / "new").write_text("new")
        for name in (".wh.gone", ".wh.gone-dir", "opaque/.wh..wh..opq"):
            (upper / name).write_text("")
        (upper / "target").write_text("linked from above")
        os.link(upper / "target", upper / "second")
        os.link(expected / "target", expected / "second")
        archives = [self.dir / "1.tar", self.dir / "2.tar"]
        run("tar", "-cf", archives[0], "-C", lower, ".")
        # The link's target stays in the lower layer alone.
        run("tar", "-cf", archives[1], "-C", upper, "target", "second", ".wh.gone", ".wh.gone-dir", "opaque")
        run("tar", "--delete", "-f", archives[1], "target")
        self.check_against(archives, expected, ["--ignore-mtime"])

    def test_a_truncated_archive_is_refused(self):
        tree = self.sub("tree")
        (tree / "f").write_bytes(b"x" * 100_000)
        archive = self.dir / "a.tar"
        run("tar", "-cf", archive, "-C", tree, ".")
        os.truncate(archive, 50_000)
        with self.assertRaisesRegex(AssertionError, "truncated"):
            run(BUILD_IMAGE, self.sub("out"), 4096, archive)


def reason_to_skip():
    if os.geteuid() != 0:
        return "needs root"
    for tool in ("tar", "bsdtar", "fsck.erofs", "dump.erofs"):
        if not shutil.which(tool):
            return f"needs {tool}"
    release = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
    if release < (6, 12):
        return "needs Linux 6.12 for EROFS on files"
    return None


def add_formats():
    """One test for each way to write an archive."""
    gnu = {form: (form,) for form in ("v7", "ustar", "oldgnu", "gnu", "pax")}
    gnu["oldgnu_sparse"] = ("oldgnu", "--sparse")
    gnu["gnu_sparse"] = ("gnu", "--sparse")
    for version in ("0.0", "0.1", "1.0"):
        name = "pax_sparse_" + version.replace(".", "_")
        gnu[name] = ("pax", "--sparse", f"--sparse-version={version}")
    for name, arguments in gnu.items():
        setattr(ImageTest, f"test_gnu_tar_{name}", lambda self, arguments=arguments: self.gnu_tar(*arguments))
    for form in ("v7", "ustar", "gnutar", "pax"):
        setattr(ImageTest, f"test_bsdtar_{form}", lambda self, form=form: self.bsdtar(form))


if __name__ == "__main__":
    BUILD_IMAGE = os.path.abspath(sys.argv.pop(1))
    if reason := reason_to_skip():
        print(f"SKIPPED: {reason}")
        sys.exit(77)
    add_formats()
    unittest.main()
