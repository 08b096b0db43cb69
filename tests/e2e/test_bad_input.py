"""Wrong input ends in one line and a status of its own, leaves nothing behind, and the root goes on working."""

import gzip
import json
import os
import pathlib
import random
import shutil
import subprocess
import time

import images
import oci
from case import (BUSY, CORRUPT, NO_DAEMON, NO_SPACE, NOT_FOUND, NOT_ROOT, UNAUTHORIZED, UNREACHABLE, UNSUPPORTED,
                  USAGE, Case)
from sandbox import BIN, BUILD, Hydrant, Registry, free_port, small_disk


def tar_of(**files):
    return oci.tar_of(files)


class BadImages(Case):
    def image(self, name="bad"):
        return oci.Image(self.temporary() / name)

    def refuses(self, status, words, reference):
        directory = self.temporary()
        self.fails(status, words, "mount", reference, directory)
        self.assertEqual(os.listdir(directory), [])
        self.nothing_left()
        self.works_afterwards()

    def test_unknown_image(self):
        self.refuses(NOT_FOUND, ["nobody/has-this"], self.registry.name("nobody/has-this:1"))

    def test_unknown_tag(self):
        reference = self.push("small")
        self.refuses(NOT_FOUND, ["small", "nosuchtag"], reference.replace(":latest", ":nosuchtag"))

    def test_malformed_reference(self):
        self.refuses(USAGE, ["UPPER"], self.registry.name("UPPER//case:la:test"))

    def test_malformed_digest(self):
        self.refuses(USAGE, ["sha256:abc"], self.registry.name("small@sha256:abc"))

    def test_unreachable_registry(self):
        port = free_port()
        self.refuses(UNREACHABLE, [f"127.0.0.1:{port}"], f"127.0.0.1:{port}/small:latest")

    def test_a_tag_that_is_not_an_image(self):
        image = self.image("chart")
        image.config_type = "application/vnd.example.chart.config.v1+json"
        image.add_layer(b"not a layer", media_type="application/vnd.example.chart.content.v1")
        self.refuses(UNSUPPORTED, ["chart"], self.push(image.finish().directory))

    def test_unknown_layer_type(self):
        image = self.image()
        image.add_layer(tar_of(a=b"a"), media_type="application/vnd.example.image.layer.v9.tar+rot13")
        self.refuses(UNSUPPORTED, ["rot13"], self.push(image.finish().directory))

    def big_image(self, name="bad"):
        image = self.image(name)
        image.add_layer(tar_of(data=random.Random(3).randbytes(4 << 20), hello=b"hello\n"))
        return image

    def tampered(self, change):
        """A pushed image whose layer the registry now serves changed."""
        image = self.big_image().finish()
        reference = self.push(image.directory)
        blob = self.registry.blob_path(image.layers[0]["digest"])
        blob.write_bytes(change(blob.read_bytes()))
        return reference, image.layers[0]["digest"]

    def test_truncated_layer(self):
        reference, digest = self.tampered(lambda data: data[: len(data) // 2])
        self.refuses(CORRUPT, [digest[:20]], reference)

    def test_corrupt_layer(self):
        reference, digest = self.tampered(lambda data: data[:2_000_000] + bytes([data[2_000_000] ^ 1]) + data[2_000_001:])
        self.refuses(CORRUPT, [digest[:20]], reference)

    def test_corrupt_layer_whose_gzip_is_in_order(self):
        other = gzip.compress(tar_of(data=random.Random(4).randbytes(4 << 20), hello=b"HELLO\n"), 6, mtime=0)
        reference, digest = self.tampered(lambda data: other[: len(data)].ljust(len(data), b"\0"))
        self.refuses(CORRUPT, [digest[:20]], reference)

    def test_corrupt_layer_after_it_was_indexed_gives_errors_and_never_wrong_bytes(self):
        image = self.big_image().finish()
        reference = self.push(image.directory)
        self.hydrant.ok("index", reference)
        blob = self.registry.blob_path(image.layers[0]["digest"])
        data = blob.read_bytes()
        blob.write_bytes(data[:2_000_000] + bytes([data[2_000_000] ^ 1]) + data[2_000_001:])
        directory = self.hydrant.mount(reference)
        expected = random.Random(3).randbytes(4 << 20)
        with open(directory / "data", "rb", buffering=0) as file:
            failed = 0
            for offset in range(0, 4 << 20, 65536):
                try:
                    got = os.pread(file.fileno(), 65536, offset)
                    self.assertEqual(got, expected[offset : offset + 65536], offset)
                except OSError:
                    failed += 1
            self.assertGreater(failed, 0)
        self.hydrant.ok("umount", directory)
        self.nothing_left()
        self.works_afterwards()

    def test_a_layer_with_another_diff_id(self):
        image = self.image()
        image.add_layer(tar_of(a=b"a"), diff_id="sha256:" + "0" * 64)
        self.refuses(CORRUPT, ["sha256:"], self.push(image.finish().directory))

    def test_a_manifest_that_is_not_what_its_digest_says(self):
        image = self.big_image().finish()
        self.push(image.directory)
        digest = oci.manifest_descriptor(image.directory)["digest"]
        blob = self.registry.blob_path(digest)
        text = json.loads(blob.read_text())
        text["annotations"] = {"changed": "yes"}
        blob.write_text(json.dumps(text))
        self.refuses((CORRUPT, NOT_FOUND), [digest[:20]], self.registry.name(f"bad@{digest}"))

    def test_a_layer_that_is_no_tar(self):
        image = self.image()
        image.add_layer(random.Random(5).randbytes(100_000))
        self.refuses(CORRUPT, ["sha256:"], self.push(image.finish().directory))

    def test_a_layer_that_climbs_out_changes_nothing_outside(self):
        image = self.image()
        image.add_layer(tar_of(**{"../../escape": b"x", "fine": b"fine\n"}))
        directory = self.temporary()
        self.hydrant.run("mount", self.push(image.finish().directory), directory)
        self.assertFalse((directory / "../../escape").exists())
        self.assertFalse(pathlib.Path("/escape").exists())
        if self.hydrant.image_mounts():
            self.hydrant.ok("umount", directory)
        self.works_afterwards()


class Credentials(Case):
    def setUp(self):
        super().setUp()
        self.closed = Registry("anna", "right")
        self.addCleanup(self.closed.close)
        self.reference = self.push("small", registry=self.closed)

    def test_no_credentials(self):
        self.fails(UNAUTHORIZED, [f"127.0.0.1:{self.closed.port}"], "mount", self.reference, self.temporary())
        self.nothing_left()
        self.works_afterwards()

    def test_wrong_credentials(self):
        self.hydrant.log_in(f"127.0.0.1:{self.closed.port}", "anna", "wrong")
        self.fails(UNAUTHORIZED, [f"127.0.0.1:{self.closed.port}"], "mount", self.reference, self.temporary())
        self.nothing_left()
        self.works_afterwards()

    def test_right_credentials_of_dockers_config(self):
        self.hydrant.log_in(f"127.0.0.1:{self.closed.port}", "anna", "right")
        directory = self.hydrant.mount(self.reference)
        self.assertEqual((directory / "hello").read_text(), "hello\n")
        self.assertNotIn("right", self.hydrant.logs())


class BadPlaces(Case):
    def test_a_mount_point_that_is_missing(self):
        place = self.hydrant.base / "missing"
        self.fails(NOT_FOUND, [place], "mount", self.push("small"), place)
        self.assertEqual(self.hydrant.daemons(), {})
        self.works_afterwards()

    def test_a_mount_point_that_is_a_file(self):
        place = self.temporary() / "file"
        place.write_text("x")
        self.fails(USAGE, [place, "not a directory"], "mount", self.push("small"), place)
        self.works_afterwards()

    def test_a_mount_point_that_is_busy(self):
        reference = self.push("small")
        place = self.hydrant.mount(reference)
        self.fails(BUSY, [place], "mount", reference, place)
        self.assertEqual(len(self.hydrant.image_mounts()), 1)
        self.hydrant.ok("umount", place)
        self.works_afterwards()

    def test_a_mount_point_where_somebody_else_has_mounted(self):
        place = self.temporary()
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(place)], check=True)
        self.fails(BUSY, [place], "mount", self.push("small"), place)
        subprocess.run(["umount", str(place)], check=True)
        self.works_afterwards()

    def test_a_full_disk(self):
        with small_disk(24) as disk, Hydrant(base=disk) as cramped:
            self.hydrant, roomy = cramped, self.hydrant
            try:
                self.fails(NO_SPACE, [], "mount", self.push("one"), self.temporary())
                self.nothing_left()
                self.works_afterwards()
            finally:
                self.hydrant = roomy

    def test_a_cache_directory_on_tmpfs(self):
        place = self.temporary()
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(place)], check=True)
        reference, directory = self.push("small"), self.temporary()
        self.hydrant.root, root = place / "root", self.hydrant.root
        try:
            self.fails(UNSUPPORTED, ["tmpfs"], "mount", reference, directory)
            self.assertEqual(self.hydrant.daemons(), {})
        finally:
            self.hydrant.root = root
            subprocess.run(["umount", "-l", str(place)])
        self.nothing_left()
        self.works_afterwards()

    def test_a_file_system_whose_blocks_are_too_small(self):
        with small_disk(24, block=1024) as disk, Hydrant(base=disk) as cramped:
            self.hydrant, roomy = cramped, self.hydrant
            try:
                self.fails(UNSUPPORTED, ["ext4", "1024", "4096"], "mount", self.push("small"), self.temporary())
                self.assertEqual(self.hydrant.daemons(), {})
            finally:
                self.hydrant = roomy
        self.works_afterwards()

    def test_a_daemon_that_is_missing_is_told_at_once(self):
        place = self.temporary()
        for name in ("hydrant", "hydrantd", "hydrant-keeper"):
            shutil.copy(BIN / name, place / name)
        self.hydrant.env["PATH"] = "/usr/bin:/bin"
        directory, start = self.temporary(), time.monotonic()
        done = subprocess.run([place / "hydrant", "mount", "--root", self.hydrant.root, self.push("small"), directory],
                              env=self.hydrant.env, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.assertEqual((done.returncode, done.stderr.count("\n")), (NO_DAEMON, 1), done.stderr)
        self.assertIn("cannot run hydrant-fetchd: No such file", done.stderr)
        self.assertLess(time.monotonic() - start, 9, "that is what a start may take, not a refusal")
        self.assertEqual(self.hydrant.daemons(), {})
        self.works_afterwards()

    def test_a_kernel_without_file_backed_erofs(self):
        """old_kernel.so answers for EROFS what kernels before 6.12 do; everything else is the real kernel. And here are no loop
        devices, either; where there are, it works (test_loops.py)."""
        library = BUILD / "lib/libold_kernel.so"
        self.hydrant.env["LD_PRELOAD"] = str(library)
        subprocess.run(["mount", "--bind", "/dev/null", "/dev/loop-control"], check=True)
        try:
            self.fails(UNSUPPORTED, ["6.12", "loop"], "mount", self.push("small"), self.temporary())
        finally:
            subprocess.run(["umount", "/dev/loop-control"], check=True)
        self.nothing_left()
        self.hydrant.ok("stop")
        del self.hydrant.env["LD_PRELOAD"]
        self.works_afterwards()

    def test_no_root(self):
        place = self.temporary()
        self.fails(NOT_ROOT, ["root", "sudo"], "mount", self.push("small"), place,
                   prefix=["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"])
        self.assertEqual(self.hydrant.daemons(), {})
        self.works_afterwards()
