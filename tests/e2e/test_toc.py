"""Layers that carry a table of contents mount by it: the tree equals what umoci unpacks of the image they were made of,
and hardly anything was fetched by then."""

import errno
import json
import os
import subprocess

import estargz
import images
import oci
from case import Case
from sandbox import wait_until


class Toc(Case):
    def estargz(self, image, **options):
        """A layout of `image` with eStargz layers."""
        written = oci.Image(self.temporary() / "estargz")
        for tar in oci.layer_tars(images.path(image)):
            layer = estargz.Layer(tar, **options)
            written.add_layer(layer.tar, stored=layer.stored, annotations=layer.annotations)
        written.finish()
        return written.directory

    def chunked(self, image):
        """A layout of `image` with zstd:chunked layers, as skopeo writes them."""
        directory = self.temporary() / "chunked"
        subprocess.run(["skopeo", "copy", "--quiet", "--dest-compress-format", "zstd:chunked",
                        f"oci:{images.path(image)}:latest", f"oci:{directory}:latest"], check=True)
        return directory

    def mounts_by_table(self, image, directory, kind):
        expected = self.unpack(image)
        reference = self.push(directory, kind.replace(":", "-").lower() + "-" + image)
        before = self.registry.bytes_sent()
        mounted = self.hydrant.mount(reference)
        sent = self.registry.bytes_sent() - before
        facts = self.hydrant.ok("stat", "--json", mounted)["image"]
        self.assertEqual({layer["toc"] for layer in facts["layers"]}, {kind}, facts)
        self.assertTrue(all(layer["lazy"] for layer in facts["layers"]), facts)
        self.same_tree(expected, mounted)
        self.hydrant.ok("umount", mounted)
        return sent, facts["compressed_bytes"]

    def test_estargz(self):
        sent, size = self.mounts_by_table("many", self.estargz("many"), "eStargz")
        self.assertLess(sent, size / 8)

    def test_estargz_with_one_of_everything(self):
        self.mounts_by_table("everything", self.estargz("everything"), "eStargz")

    def test_estargz_with_small_chunks_and_shared_members(self):
        self.mounts_by_table("everything", self.estargz("everything", chunk=50_000, share=30_000), "eStargz")

    def test_zstd_chunked_as_skopeo_writes_it(self):
        sent, size = self.mounts_by_table("many", self.chunked("many"), "zstd:chunked")
        self.assertLess(sent, size / 8)

    def test_zstd_chunked_with_one_of_everything(self):
        self.mounts_by_table("everything", self.chunked("everything"), "zstd:chunked")

    def test_a_remount_after_a_restart_asks_the_registry_for_nothing_but_data(self):
        reference = self.push(self.estargz("small"))
        mounted = self.hydrant.mount(reference)
        content = (mounted / "data").read_bytes()
        (mounted / "hello").read_bytes()
        self.hydrant.ok("umount", mounted)
        self.hydrant.ok("stop")
        wait_until(lambda: not self.hydrant.daemons(), 60, "daemons end")
        self.registry.process.kill()
        mounted = self.hydrant.mount(reference)
        self.assertEqual((mounted / "data").read_bytes(), content)
        self.assertEqual((mounted / "hello").read_text(), "hello\n")

    def test_data_that_is_not_the_tables_gives_eio(self):
        directory = self.estargz("small", chunk=1 << 20)
        reference = self.push(directory)
        mounted = self.hydrant.mount(reference)
        blobs = directory / "blobs/sha256"
        manifest = json.loads((blobs / oci.manifest_descriptor(directory)["digest"][7:]).read_text())
        blob = self.registry.blob_path(manifest["layers"][0]["digest"])
        bad = bytearray(blob.read_bytes())
        bad[len(bad) // 2] ^= 1  # noise, which gzip stores as it is
        blob.write_bytes(bad)
        with self.assertRaises(OSError) as caught:
            (mounted / "data").read_bytes()
        self.assertEqual(caught.exception.errno, errno.EIO)
        with open(mounted / "data", "rb") as file:  # another chunk
            self.assertEqual(len(os.pread(file.fileno(), 4096, 0)), 4096)
        self.assertEqual((mounted / "hello").read_text(), "hello\n")

    def test_a_table_that_the_manifest_does_not_name_is_a_file_like_others(self):
        directory = self.estargz("small")
        expected = self.unpack(directory)
        self.assertTrue((expected / "stargz.index.json").exists())
        written = oci.Image(self.temporary() / "unbound")
        layer = estargz.Layer(oci.layer_tars(images.path("small"))[0])
        written.add_layer(layer.tar, stored=layer.stored)
        mounted = self.hydrant.mount(self.push(written.finish().directory))
        self.assertEqual(self.hydrant.ok("stat", "--json", mounted)["image"]["layers"][0]["toc"], "")
        self.same_tree(expected, mounted)
