"""Layers that are EROFS images: the mounted tree is what the kernel shows of the same images."""

import errno
import gzip
import os
import pathlib
import random
import shutil
import stat
import struct
import subprocess

import erofs
import images
import oci
import packed_erofs
from case import CORRUPT, UNSUPPORTED, Case


class ErofsLayers(Case):
    def image(self, *layers, media_type=erofs.LAYER):
        written = oci.Image(self.temporary() / "image")
        for layer in layers:
            written.add_layer(layer, media_type)
        return written.finish().directory

    def lazy_both_ways(self, directory, expected):
        mounted, sent = self.both_ways(directory, expected)
        facts = self.hydrant.ok("stat", "--json", mounted)["image"]
        self.assertTrue(all(layer["lazy"] for layer in facts["layers"]), facts)
        self.assertLess(sent, 100_000)

    def tree(self, *fills):
        top = self.temporary() / "tree"
        top.mkdir()
        for fill in fills:
            fill(top)
        return top

    def everything(self):
        tree = self.tree(images.layer_of_everything)
        for deep in (tree / "long").glob("directory-*"):  # mkfs.erofs 1.5 does not find a name of 255 bytes so deep
            shutil.rmtree(deep)
        return tree

    def test_one_of_everything(self):
        tree = self.everything()
        for flags in ([], ["-Eforce-inode-extended"], ["--chunksize=65536"]):
            with self.subTest(flags=flags):
                image = erofs.make(tree, *flags)
                self.lazy_both_ways(self.image(image), erofs.mount(image, self.temporary()))
                self.hydrant.forget()

    def test_layers_with_whiteouts_and_opaque_directories(self):
        bottom = self.tree(images.layer_of_changes)
        os.symlink("/srv/kept", bottom / "srv/becomes-a-directory")
        middle = self.temporary()
        for name in ("gone", "again", "never-there", "kept/f03"):
            (middle / "srv/kept").mkdir(parents=True, exist_ok=True)
            os.mknod(middle / "srv" / name, stat.S_IFCHR | 0o600, os.makedev(0, 0))
        (middle / "srv/opaque").mkdir()
        os.setxattr(middle / "srv/opaque", "trusted.overlay.opaque", b"y")
        images.text_file(middle / "srv/opaque/new", "the only one\n")
        images.text_file(middle / "srv/becomes-a-directory/inside", "a directory\n")
        images.text_file(middle / "srv/becomes-file", "now a file\n")
        top = self.tree(images.layer_of_returns)
        os.unlink(top / "srv/gone/back")
        layers = [erofs.make(tree) for tree in (bottom, middle, top)]
        self.lazy_both_ways(self.image(*layers), erofs.overlay(layers, self.temporary()))

    def test_a_whole_image_in_zstd_frames(self):
        image = erofs.make(self.tree(images.layer_of_changes))
        stored = b"".join(subprocess.run(["zstd", "-qc"], input=image[at:at + (1 << 20)], stdout=subprocess.PIPE, check=True).stdout
                          for at in range(0, len(image), 1 << 20))
        written = oci.Image(self.temporary() / "image")
        written.add_layer(image, erofs.LAYER + "+zstd", stored=stored)
        self.lazy_both_ways(written.finish().directory, erofs.mount(image, self.temporary()))

    def test_beside_tar_layers_and_under_a_wrong_media_type(self):
        many = oci.layer_tars(images.path("many"))
        top = self.everything()
        written = oci.Image(self.temporary() / "image")
        written.add_layer(many[1])
        written.add_layer(erofs.make(top), oci.LAYER)
        tars = oci.Image(self.temporary() / "tars")
        for tar in (many[1], oci.tar_directory(top)):
            tars.add_layer(tar)
        expected = self.unpack(tars.finish().directory)
        self.lazy_both_ways(written.finish().directory, expected)

    def test_a_chunk_index_of_its_own_is_no_layer_and_diff_ids_may_be_missing(self):
        image = erofs.make(self.tree(lambda top: images.text_file(top / "hello", "hello\n")))
        written = oci.Image(self.temporary() / "image")
        written.add_layer(image, erofs.IMAGE, annotations={"org.erofs.role": "overlay-lower"})
        written.add_layer(b"not looked at", erofs.CHUNK_INDEX)
        written.add_layer(image, erofs.IMAGE)
        written.diff_ids = []
        mounted = self.hydrant.mount(self.push(written.finish().directory))
        self.assertEqual((mounted / "hello").read_text(), "hello\n")

    def mounts_by_chunks(self, written, image):
        before = self.registry.bytes_sent()
        mounted = self.hydrant.mount(self.push(written.finish().directory))
        sent = self.registry.bytes_sent() - before
        facts = self.hydrant.ok("stat", "--json", mounted)["image"]
        self.assertEqual({layer["pushed"] for layer in facts["layers"]}, {"the image's manifest"}, facts)
        self.assertEqual(facts["streamed_bytes"], 0)
        self.assertLess(sent, facts["compressed_bytes"] * 0.7)
        self.same_tree(erofs.mount(image, self.temporary()), mounted)
        return mounted

    def test_a_chunk_index_is_read_instead_of_the_layer(self):
        def fill(top):
            for number in range(6):
                (top / f"noise-{number}").write_bytes(random.Random(number).randbytes(2 << 20))
            images.text_file(top / "text", "many words\n" * 100_000)
            images.text_file(top / "dir/hello", "hello\n")
        image = erofs.make(self.tree(fill))
        for number, options in enumerate(({"zstd": True}, {"zstd": False}, {"zstd": True, "apart": True})):
            with self.subTest(options):
                apart = options.pop("apart", False)
                chunked = erofs.Chunked(image, **options)
                written = oci.Image(self.temporary() / "chunked")
                if apart:
                    written.add_layer(image, chunked.media_type, stored=chunked.data)
                    written.add_layer(chunked.apart, erofs.CHUNK_INDEX,
                                      annotations={"org.erofs.chunk-index.target": written.layers[0]["digest"]})
                    written.add_layer(erofs.make(self.tree(lambda top: images.text_file(top / "top", "top\n"))), erofs.IMAGE)
                    mounted = self.hydrant.mount(self.push(written.finish().directory))
                    pushed = [layer["pushed"] for layer in self.hydrant.ok("stat", "--json", mounted)["image"]["layers"]]
                    self.assertEqual(pushed, ["the image's manifest", ""])
                    self.assertEqual((mounted / "noise-3").read_bytes(), random.Random(3).randbytes(2 << 20))
                else:
                    written.add_layer(chunked.plain, chunked.media_type, stored=chunked.stored,
                                      annotations=chunked.annotations)
                    self.mounts_by_chunks(written, image)
                self.hydrant.forget()

    def test_a_chunk_that_is_not_the_indexs_gives_eio_and_an_index_that_is_not_the_manifests_is_passed_over(self):
        data = random.Random(9).randbytes(8 << 20)
        image = erofs.make(self.tree(lambda top: (top / "data").write_bytes(data)))
        chunked = erofs.Chunked(image)
        written = oci.Image(self.temporary() / "chunked")
        written.add_layer(image, chunked.media_type, stored=chunked.stored, annotations=chunked.annotations)
        reference = self.push(written.finish().directory)
        blob = self.registry.blob_path(oci.sha256(chunked.stored))
        mounted = self.hydrant.mount(reference, "--no-prefetch")
        bad = bytearray(chunked.stored)
        bad[5 << 20] ^= 1
        blob.write_bytes(bad)
        with self.assertRaises(OSError) as caught:
            (mounted / "data").read_bytes()
        self.assertEqual(caught.exception.errno, errno.EIO)
        with open(mounted / "data", "rb") as file:
            self.assertEqual(os.pread(file.fileno(), 4096, 0), data[:4096])
        blob.write_bytes(chunked.stored)

        other = oci.Image(self.temporary() / "other")
        other.add_layer(image, chunked.media_type, stored=chunked.stored,
                        annotations={**chunked.annotations, "org.erofs.chunk-index.digest": oci.sha256(b"other")})
        mounted = self.hydrant.mount(self.push(other.finish().directory))
        facts = self.hydrant.ok("stat", "--json", mounted)["image"]
        self.assertEqual((facts["layers"][0]["pushed"], facts["streamed_bytes"]), ("", facts["compressed_bytes"]))
        self.assertEqual((mounted / "data").read_bytes(), data)

    def decoded_both_ways(self, image, how):
        """A layer with compressed files: mounted with nothing known of it, and with its index there."""
        mounted, _ = self.both_ways(self.image(image), erofs.mount(image, self.temporary()))
        layer = self.hydrant.ok("stat", "--json", mounted)["image"]["layers"][0]
        self.assertFalse(layer["lazy"], layer)
        self.assertIn(f"compressed inside its EROFS image ({how})", layer["why"])
        return mounted

    def test_files_that_mkfs_has_compressed(self):
        tree = self.everything()
        images.text_file(tree / "packed/long", "".join(f"line {number} of many\n" for number in range(200_000)))
        images.text_file(tree / "packed/short", "compressible\n" * 900)
        (tree / "packed/zeros").write_bytes(bytes(9 << 20))
        (tree / "packed/mixed").write_bytes(random.Random(1).randbytes(300_000) + b"words " * 50_000)
        for flags in (["-zlz4"], ["-zlz4hc", "-C65536"], ["-zlz4", "-C1048576", "-Elegacy-compress"],
                      ["-zlz4", "-Eztailpacking"], ["-zlz4hc", "-C16384", "-Eztailpacking,legacy-compress"]):
            with self.subTest(flags=flags):
                self.decoded_both_ways(erofs.make(tree, *flags), "LZ4")
                self.hydrant.forget()

    def test_every_form_of_compression(self):
        image, content = packed_erofs.everything()
        mounted = self.decoded_both_ways(image, "LZ4, LZMA, deflate, zstd")
        for name, data in content.items():
            self.assertEqual((mounted / name).read_bytes(), data, name)

    def test_a_compressed_layer_beside_others_and_in_gzip(self):
        tree = self.tree(lambda top: images.text_file(top / "dir/packed", "compressible\n" * 10_000))
        image = erofs.make(tree, "-zlz4")
        written = oci.Image(self.temporary() / "image")
        written.add_layer(oci.layer_tars(images.path("many"))[1])
        written.add_layer(image, erofs.LAYER, stored=gzip.compress(image, 6))
        mounted = self.hydrant.mount(self.push(written.finish().directory))
        self.assertEqual((mounted / "dir/packed").read_text(), "compressible\n" * 10_000)
        layers = self.hydrant.ok("stat", "--json", mounted)["image"]["layers"]
        self.assertEqual([layer["lazy"] for layer in layers], [True, False])
        self.assertIn("LZ4", self.hydrant.run("stat", mounted).stdout)

    def test_a_chunk_index_does_not_make_compressed_files_lazy(self):
        image = erofs.make(self.tree(lambda top: images.text_file(top / "packed", "compressible\n" * 10_000)), "-zlz4")
        chunked = erofs.Chunked(image)
        written = oci.Image(self.temporary() / "image")
        written.add_layer(image, chunked.media_type, stored=chunked.stored, annotations=chunked.annotations)
        mounted = self.hydrant.mount(self.push(written.finish().directory))
        self.assertEqual((mounted / "packed").read_text(), "compressible\n" * 10_000)
        layer = self.hydrant.ok("stat", "--json", mounted)["image"]["layers"][0]
        self.assertEqual((layer["lazy"], layer["pushed"]), (False, ""))

    def test_what_is_compressed_in_an_unknown_way_is_named(self):
        data = "compressible\n" * 10_000
        image = bytearray(erofs.make(self.tree(lambda top: images.text_file(top / "dir/packed", data)), "-zlz4"))
        for at in range(0, len(image) - 64, 32):  # the file's inode: compact, compressed, of that size
            layout, size = struct.unpack_from("<H6xI", image, at)
            extended = layout & 1
            if extended:
                size, = struct.unpack_from("<Q", image, at + 8)
            if layout >> 1 == 3 and size == len(data):
                header = at + (64 if extended else 32)
                image[header + 6] = 0x0b
        self.fails(UNSUPPORTED, ["dir/packed", "algorithm 11"], "mount", self.push(self.image(bytes(image))), self.temporary())
        self.nothing_left()

    def test_what_cannot_be_merged_is_named(self):
        tree = self.tree(lambda top: images.text_file(top / "dir/file", "text\n"))
        plain = erofs.make(tree)
        written = oci.Image(self.temporary() / "image")
        written.add_layer(plain, erofs.IMAGE, annotations={"org.erofs.role": "device"})
        written.add_layer(plain, erofs.IMAGE)
        self.fails(UNSUPPORTED, ["role", "device"], "mount", self.push(written.finish().directory, "roles"),
                   self.temporary())
        self.nothing_left()

    def test_a_damaged_layer_is_never_read(self):
        image = erofs.make(self.tree(lambda top: (top / "data").write_bytes(random.Random(3).randbytes(3 << 20))))
        directory = self.image(image)
        reference = self.push(directory)
        blob = self.registry.blob_path(oci.sha256(image))
        bad = bytearray(image)
        bad[len(bad) // 2] ^= 1
        blob.write_bytes(bad)
        self.fails(CORRUPT, [oci.sha256(image)], "mount", reference, self.temporary())
        blob.write_bytes(image)
        mounted = self.hydrant.mount(reference)
        self.same_tree(erofs.mount(image, self.temporary()), mounted)
        self.assertEqual(list(pathlib.Path(self.hydrant.root, "fetch").glob("layer-*")), [])
