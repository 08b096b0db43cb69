"""Images of other tools, as these write them: the mounted tree is what an independent unpacker makes of the same image."""

import json
import os
import subprocess

import builders
import images
import oci
from case import Case


def fill(top):
    images.layer_of_everything(top)
    images.layer_of_changes(top)


def change(top):
    """What images.layer_of_removals and layer_of_returns say with whiteouts, done to a tree."""
    for path in ("srv/gone", "srv/kept/f03", "srv/opaque", "srv/becomes-file", "srv/becomes-dir", "srv/becomes-plain",
                 "links/two", "nodes/fifo", "xattr/user"):
        builders.remove(top / path)
    images.text_file(top / "srv/opaque/new", "the only one\n")
    images.text_file(top / "srv/becomes-file", "now a file\n")
    images.text_file(top / "srv/becomes-dir/inside", "now a directory\n")
    images.text_file(top / "srv/becomes-plain", "now a file\n")
    images.text_file(top / "srv/changed", "new\n" * 7000, 0o600)
    os.setxattr(top / "owners/big", "user.late", b"1")
    os.chown(top / "owners/setuid", 7, 8)
    os.link(top / "links/one", top / "links/fourth")
    (top / "srv/gone").symlink_to("kept")


class Tools(Case):
    def layers(self, directory):
        blobs = directory / "blobs/sha256"
        return json.loads((blobs / oci.manifest_descriptor(directory)["digest"][7:]).read_text())["layers"]

    def test_docker_manifests_as_skopeo_writes_them(self):
        subprocess.run(["skopeo", "copy", "--quiet", "--format", "v2s2", "--dest-tls-verify=false",
                        f"oci:{images.path('everything')}:latest", f"docker://{self.registry.name('docker')}:latest"], check=True)
        mounted = self.hydrant.mount(self.registry.name("docker") + ":latest")
        self.same_tree(self.unpack("everything"), mounted)

    def buildah(self):
        store = builders.Buildah(self.temporary())
        for layer in (fill, change):
            store.commit(layer)
        directory = self.temporary() / "buildah"
        store.push(directory)
        return store, directory

    def test_buildah(self):
        _, directory = self.buildah()
        self.assertEqual(len(self.layers(directory)), 2)
        self.both_ways(directory, self.unpack(directory))

    def test_zstd_chunked_as_podman_writes_it(self):
        store, plain = self.buildah()
        directory = self.temporary() / "podman"
        store.push_chunked(directory)
        mounted, _ = self.both_ways(directory, self.unpack(plain))
        facts = self.hydrant.ok("stat", "--json", mounted)["image"]
        self.assertEqual({layer["toc"] for layer in facts["layers"]}, {"zstd:chunked"}, facts)

    def test_umoci(self):
        def fill_less(top):
            fill(top)
            for much in ("many", "sizes", "sparse"):  # umoci reads everything twice a layer
                builders.remove(top / much)

        def change_less(top):
            change(top)
            # umoci would unpack another tree than it packed: it follows such a link to remove what the directory had held.
            os.unlink(top / "srv/gone")

        directory = self.temporary() / "umoci"
        builders.umoci(directory, self.temporary(), (fill_less, change_less))
        self.assertEqual(len(self.layers(directory)), 2)
        self.both_ways(directory, self.unpack(directory))

    def test_estargz_as_its_own_converter_writes_it(self):
        _, plain = self.buildah()  # of tars that have holes as such it says "missed writing"
        directory = self.temporary() / "estargz"
        builders.stargz_converter(plain, directory, self.temporary())
        # Its table has whole seconds.
        mounted, _ = self.both_ways(directory, self.unpack(plain), "--whole-seconds")
        facts = self.hydrant.ok("stat", "--json", mounted)["image"]
        self.assertEqual({layer["toc"] for layer in facts["layers"]}, {"eStargz"}, facts)

    def test_every_format_of_plain_tars(self):
        directory = self.temporary() / "tars"
        expected = builders.tar_formats(directory, self.temporary(), images.layer_of_changes)
        self.both_ways(directory, expected, "--ignore-root-mtime")
