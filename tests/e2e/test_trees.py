"""The mounted tree equals what umoci unpacks, on both ways a mount can come about."""

import json
import re
import subprocess

import images
import oci
from case import Case


class Trees(Case):
    def test_one_layer(self):
        self.both_ways("one", self.unpack("one"))

    def test_many_layers_with_whiteouts_and_opaque_directories(self):
        self.both_ways("many", self.unpack("many"))

    def test_zstd_as_skopeo_writes_it(self):
        for image, compression in (("many", "zstd"), ("everything", "zstd")):
            directory = self.temporary() / "oci"
            subprocess.run(["skopeo", "copy", "--quiet", "--dest-compress-format", compression,
                            f"oci:{images.path(image)}:latest", f"oci:{directory}:latest"], check=True)
            manifest = json.loads((directory / "blobs/sha256" / oci.manifest_descriptor(directory)["digest"][7:]).read_text())
            for layer in manifest["layers"]:
                with (directory / "blobs/sha256" / layer["digest"][7:]).open("rb") as blob:
                    self.assertEqual(blob.read(4), b"\x28\xb5\x2f\xfd", layer)
            self.both_ways(directory, self.unpack(image))  # umoci cannot read zstd
            self.hydrant.forget()

    def test_links_holes_long_names_capabilities_and_odd_nodes(self):
        self.both_ways("everything", self.unpack("everything"))

    def test_a_single_layer_equals_what_tar_unpacks(self):
        import gzip
        directory = images.path("everything")
        manifest = json.loads((directory / "blobs/sha256" / oci.manifest_descriptor(directory)["digest"][7:]).read_text())
        layer = gzip.decompress((directory / "blobs/sha256" / manifest["layers"][0]["digest"][7:]).read_bytes())
        expected = self.temporary()
        subprocess.run(["tar", "--xattrs", "--xattrs-include=*", "--same-owner", "--numeric-owner", "-C", str(expected),
                        "-xpf", "-"], input=layer, check=True)
        self.same_tree(expected, self.hydrant.mount(self.push("everything")))

    def test_fsck_finds_nothing(self):
        for image in ("many", "everything"):
            directory = self.hydrant.mount(self.push(image))
            stat = self.hydrant.ok("stat", "--json", directory)
            metadata = self.backing_file(stat["metadata"]["id"])
            devices = [f"--device={self.backing_file(device['id'])}" for device in stat["devices"]]
            done = subprocess.run(["fsck.erofs", *devices, str(metadata)], stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True)
            # Its exit status is 0 even for a wrong checksum: the text tells.
            self.assertEqual(re.findall(r".*<E>.*", done.stdout), [], done.stdout)
            self.assertEqual(done.returncode, 0, done.stdout)
            self.hydrant.ok("umount", directory)

    def backing_file(self, object_id):
        found = list(self.hydrant.root.glob(f"cache/**/*{object_id}*"))
        self.assertEqual(len(found), 1, object_id)
        return found[0]
