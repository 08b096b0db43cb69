"""SOCI's indexes in the registry, read instead of streaming: by the annotation of the image's manifest as good as the image,
beside it only where such are wanted."""

import gzip
import json
import random
import urllib.request

import images
import oci
import soci
from case import Case
from sandbox import wait_until


class Soci(Case):
    def image(self, tars):
        """A layout of gzip layers that is not finished yet, and the layers by digest."""
        written = oci.Image(self.temporary() / "soci")
        layers = {}
        for tar in tars:
            stored = gzip.compress(tar, 6, mtime=0)
            written.add_layer(tar, stored=stored)
            layers[written.layers[-1]["digest"]] = stored
        return written, layers

    def push_bound(self, written, index, name):
        written.annotations = {soci.INDEX_DIGEST: oci.sha256(json.dumps(index).encode())}
        oci.push(written.finish().directory, self.registry.port, name, beside=[index])
        return self.registry.name(name) + ":latest"

    def push_beside(self, written, layers, name, **options):
        directory = written.finish().directory
        subject = oci.manifest_descriptor(directory)
        index = soci.index(written, layers, soci.V1, {key: subject[key] for key in ("mediaType", "digest", "size")},
                           **options)
        oci.push(directory, self.registry.port, name, beside=[index])
        body = json.dumps(index).encode()
        entry = {"mediaType": oci.MANIFEST, "digest": oci.sha256(body), "size": len(body), "artifactType": soci.V1}
        listed = json.dumps({"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": [entry]}).encode()
        place = f"http://127.0.0.1:{self.registry.port}/v2/{name}/manifests/{subject['digest'].replace(':', '-')}"
        urllib.request.urlopen(urllib.request.Request(place, listed, {"Content-Type": oci.INDEX}, method="PUT"))
        return self.registry.name(name) + ":latest"

    def facts(self, mounted):
        return self.hydrant.ok("stat", "--json", mounted)["image"]

    def test_an_index_that_the_manifest_names_is_as_good_as_the_image(self):
        written, layers = self.image(oci.layer_tars(images.path("many")))
        reference = self.push_bound(written, soci.index(written, layers, soci.V2), "bound")
        before = self.registry.bytes_sent()
        mounted = self.hydrant.mount(reference, "--no-prefetch")
        sent = self.registry.bytes_sent() - before
        facts = self.facts(mounted)
        self.assertEqual({layer["pushed"] for layer in facts["layers"]}, {"the image's manifest"}, facts)
        self.assertEqual(facts["streamed_bytes"], 0)
        self.assertLess(sent, sum(len(soci.ztoc(stored)) for stored in layers.values()) + 500_000)
        self.same_tree(self.unpack("many"), mounted)

    def test_one_beside_the_image_is_used_when_asked_for_alone_and_then_proven(self):
        tars = oci.layer_tars(images.path("small"))
        reference = self.push_beside(*self.image(tars), "beside")
        mounted = self.hydrant.mount(reference)
        self.assertEqual(self.facts(mounted)["layers"][0]["pushed"], "")
        self.hydrant.ok("umount", mounted)

        written, layers = self.image([tars[0] + bytes(512)])  # another layer, so that nothing is here yet
        reference = self.push_beside(written, layers, "late")
        mounted = self.hydrant.mount(reference, "--trust", "late")
        self.assertEqual(self.facts(mounted)["streamed_bytes"], 0)
        self.assertEqual((mounted / "hello").read_text(), "hello\n")
        wait_until(lambda: "index.proven" in self.hydrant.logs(), 60, "the index is proven")
        self.hydrant.ok("umount", mounted)
        mounted = self.hydrant.mount(reference)
        self.assertEqual(self.facts(mounted)["layers"][0]["pushed"], "")
        self.same_tree(self.unpack("small"), mounted)

    def test_one_that_lies_about_a_window_is_refused(self):
        tree = self.temporary()
        images.text_file(tree / "hello", "hello\n")
        numbers = random.Random(5)
        images.text_file(tree / "words", " ".join(str(numbers.randrange(5000)) for _ in range(500_000)))
        written, layers = self.image([oci.tar_directory(tree)])
        reference = self.push_beside(written, layers, "lies", spoil_window=True)
        mounted = self.hydrant.mount(reference, "--trust", "late")
        self.assertEqual((mounted / "hello").read_text(), "hello\n")
        wait_until(lambda: "index.refused" in self.hydrant.logs(), 60, "the index is refused")
        self.hydrant.ok("umount", mounted)
        mounted = self.hydrant.mount(reference, "--trust", "late")
        self.assertEqual(self.facts(mounted)["layers"][0]["pushed"], "")
        self.same_tree(tree, mounted)

    def test_a_layer_that_it_cannot_tell_of_is_streamed(self):
        written, layers = self.image(oci.layer_tars(images.path("everything")))  # has sparse files
        reference = self.push_bound(written, soci.index(written, layers, soci.V2), "sparse")
        mounted = self.hydrant.mount(reference)
        facts = self.facts(mounted)
        self.assertEqual((facts["layers"][0]["pushed"], facts["streamed_bytes"]), ("", facts["compressed_bytes"]))
        self.same_tree(self.unpack("everything"), mounted)
