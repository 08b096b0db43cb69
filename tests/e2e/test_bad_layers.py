"""Layers that are made to hurt: the mount fails with the entry's name, or shows what engines show of them; memory stays bounded;
nothing is written outside the root."""

import contextlib
import hashlib
import io
import os
import pathlib
import re
import subprocess
import tarfile
import zlib

import oci
from case import CORRUPT, UNSUPPORTED, Case

MOST_MEMORY = 200 << 20  # of hydrant-fetchd: what it has anyway, and 64 MB for a layer that streams


def entry(name, data=None, **fields):
    """A member and its data; `fields` are TarInfo's."""
    info = tarfile.TarInfo(name)
    info.size = len(data or b"")
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def tar_of(*entries):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in entries:
            tar.addfile(info, io.BytesIO(data) if data is not None else None)
    return out.getvalue()


def link(name, target, kind=tarfile.LNKTYPE):
    return entry(name, type=kind, linkname=target)


def directory(name):
    return entry(name, type=tarfile.DIRTYPE, mode=0o755)


class BadLayers(Case):
    def image(self, *layers):
        written = oci.Image(self.temporary() / "bad")
        for tar in layers:
            written.add_layer(tar)
        return written.finish().directory

    def most_memory(self):
        status = pathlib.Path(f"/proc/{self.hydrant.daemons()['hydrant-fetchd']}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) << 10

    def refuses(self, status, words, *layers):
        place = self.temporary()
        self.fails(status, words, "mount", self.push(self.image(*layers)), place)
        self.assertNotIn(str(place), self.hydrant.image_mounts())

    @contextlib.contextmanager
    def mounted(self, *layers):
        """Until the test has looked at it."""
        place = self.hydrant.mount(self.push(self.image(*layers)))
        try:
            yield place
        finally:
            self.hydrant.ok("umount", place)

    @contextlib.contextmanager
    def walk(self, top, names):
        """Yields a descriptor of what stands deeper than any path can say."""
        where = os.open(top, os.O_PATH)
        try:
            for name in names:
                below = os.open(name, os.O_PATH, dir_fd=where)
                os.close(where)
                where = below
            yield where
        finally:
            os.close(where)

    def unpacked(self, *layers):
        """As tar makes it of them, one after the other."""
        target = self.temporary()
        for tar in layers:
            subprocess.run(["tar", "-C", str(target), "-xpf", "-"], input=tar, check=True)
        return target

    def test_names_that_lead_out_are_refused_with_the_name(self):
        for name in ("../escape", "a/../../escape", "a/..", "/../escape"):
            with self.subTest(name):
                self.refuses(CORRUPT, [name], tar_of(entry("fine", b"fine"), entry(name, b"x")))
        self.refuses(CORRUPT, ["../../etc/passwd"], tar_of(link("stolen", "../../etc/passwd")))
        self.assertFalse(pathlib.Path(self.hydrant.base, "escape").exists())
        self.works_afterwards()

    def test_absolute_names_and_links_stay_inside_the_image(self):
        secret = self.hydrant.base / "secret"
        secret.write_text("of the host\n")
        tar = tar_of(entry("/abs/file", b"file\n"), link("hard", "/abs/file"), link("soft", str(secret), tarfile.SYMTYPE))
        with self.mounted(tar) as top:
            self.assertEqual((top / "hard").read_text(), "file\n")
            self.assertEqual((top / "hard").stat().st_nlink, 2)
            self.assertEqual(os.readlink(top / "soft"), str(secret))
        self.refuses(CORRUPT, ["stolen", str(secret)[1:]], tar_of(link("stolen", str(secret))))
        # Below a link that leads out, files go where it leads inside the image.
        outside = self.hydrant.base / "outside"
        outside.mkdir()
        tar = tar_of(link("way", str(outside), tarfile.SYMTYPE), entry("way/planted", b"planted\n"))
        with self.mounted(tar) as top:
            self.assertEqual(os.listdir(outside), [])
            self.assertEqual((top / str(outside)[1:] / "planted").read_text(), "planted\n")
        self.works_afterwards()

    def test_links_in_a_circle_and_to_nothing_are_named(self):
        self.refuses(CORRUPT, ["one", "circle"], tar_of(link("one", "two"), link("two", "three"), link("three", "one")))
        self.refuses(CORRUPT, ["itself"], tar_of(link("itself", "itself")))
        self.refuses(CORRUPT, ["orphan", "nowhere"], tar_of(link("orphan", "nowhere")))
        self.refuses(CORRUPT, ["cat"], tar_of(directory("dir"), link("cat", "dir")))
        # Symbolic ones are the reader's affair, until something is below them.
        loop = (link("x", "y", tarfile.SYMTYPE), link("y", "x", tarfile.SYMTYPE))
        with self.mounted(tar_of(*loop)) as top:
            self.assertEqual(os.readlink(top / "x"), "y")
        self.refuses(CORRUPT, ["x/below", "symbolic links"], tar_of(*loop, entry("x/below", b"")))
        self.works_afterwards()

    def test_names_of_all_lengths(self):
        part = "d" * 255
        longest = "/".join([part] * 15) + "/" + "f" * 255  # 4095 bytes
        self.assertEqual(len(longest), 4095)
        with self.mounted(tar_of(entry(longest, b"deep\n"))) as top, self.walk(top, longest.split("/")) as found:
            with open(f"/proc/self/fd/{found}") as file:
                self.assertEqual(file.read(), "deep\n")
        self.refuses(UNSUPPORTED, ["ddd"], tar_of(entry("/".join([part] * 16) + "/ff", b"")))
        self.refuses(UNSUPPORTED, ["nnn"], tar_of(entry("n" * 256, b"")))
        self.works_afterwards()

    def test_depth_without_end(self):
        levels = 2040  # as deep as a path may be
        tar = tar_of(entry("d/" * levels + "bottom", b"bottom\n"))
        with self.mounted(tar) as top, self.walk(top, ["d"] * levels) as found:
            self.assertEqual(os.stat("bottom", dir_fd=found).st_size, 7)
        self.works_afterwards()

    def test_the_last_of_duplicates_counts_as_when_unpacked(self):
        tar = tar_of(entry("twice", b"first\n"), entry("twice", b"second\n", mode=0o600), entry("./twice-too", b"1"),
                     entry("twice-too", b"22"), directory("dir"), entry("dir/kept", b"kept\n"),
                     entry("dir", type=tarfile.DIRTYPE, mode=0o700), entry("turned", b"a file\n"),
                     link("turned", "twice", tarfile.SYMTYPE), *[entry("often", b"%d" % n) for n in range(5000)])
        with self.mounted(tar) as top:
            self.same_tree(self.unpacked(tar), top, "--ignore-root-mtime")
            self.assertEqual((top / "often").read_text(), "4999")

    def test_an_entry_below_a_file_is_named(self):
        self.refuses(CORRUPT, ["file/below"], tar_of(entry("file", b"x"), entry("file/below", b"y")))
        self.refuses(CORRUPT, ["file/below"], tar_of(entry("file", b"x")), tar_of(entry("file/below", b"y")))

    def test_a_size_that_lies_is_refused(self):
        liar = bytearray(tar_of(entry("liar", b"x" * 1000)))
        at = liar.index(b"liar") // 512 * 512
        liar[at + 124:at + 136] = b"%011o\0" % (1 << 32)
        liar[at + 148:at + 156] = b" " * 8
        liar[at + 148:at + 156] = b"%06o\0 " % sum(liar[at:at + 512])
        self.refuses(CORRUPT, ["liar"], bytes(liar))
        self.works_afterwards()

    def streamed_image(self, name, level, pieces):
        """Its only layer is a tar of these pieces, which are too much to hold."""
        packer, sha, stored = zlib.compressobj(level, zlib.DEFLATED, 31), hashlib.sha256(), bytearray()
        for piece in pieces:
            sha.update(piece)
            stored += packer.compress(piece)
        stored += packer.flush()
        written = oci.Image(self.temporary() / name)
        written.add_layer(b"", stored=bytes(stored), diff_id="sha256:" + sha.hexdigest())
        return self.push(written.finish().directory), len(stored)

    def test_a_bomb_costs_no_memory(self):
        def bomb(size):
            yield entry("zeros", size=size)[0].tobuf(tarfile.PAX_FORMAT)
            for _ in range(size >> 20):
                yield bytes(1 << 20)
            yield bytes(1024)

        size = 1 << 30
        reference, stored = self.streamed_image("bomb", 9, bomb(size))
        self.assertLess(stored, size // 900)
        mounted = self.hydrant.mount(reference)
        self.assertEqual((mounted / "zeros").stat().st_size, size)
        with open(mounted / "zeros", "rb") as file:
            self.assertEqual(os.pread(file.fileno(), 4096, size - 4096), bytes(4096))
        self.assertLess(self.most_memory(), MOST_MEMORY)

    def test_a_million_empty_directories(self):
        def directories(count):
            header = bytearray(directory("")[0].tobuf(tarfile.USTAR_FORMAT))
            header[:100], header[148:156] = bytes(100), b" " * 8
            rest, tar = sum(header), bytearray()
            for number in range(count):
                name = b"%03d/%03d/" % divmod(number, 1000)
                header[:len(name)] = name
                header[148:156] = b"%06o\0 " % (rest + sum(name))
                tar += header
                if len(tar) >= 1 << 20:
                    yield bytes(tar)
                    tar.clear()
            yield bytes(tar) + bytes(1024)

        reference, _ = self.streamed_image("million", 1, directories(1_000_000))
        mounted = self.hydrant.mount(reference)
        self.assertEqual(len(os.listdir(mounted)), 1000)
        self.assertEqual(sorted(os.listdir(mounted / "999")), ["%03d" % number for number in range(1000)])
        self.assertEqual((mounted / "123").stat().st_nlink, 1002)
        self.assertLess(self.most_memory(), 600 << 20)
