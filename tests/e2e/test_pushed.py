"""Indexes beside an image in its registry: who may use them, and what they save."""

import json
import mmap
import os
import subprocess
import urllib.request

import estargz
import oci
from case import NOT_FOUND, UNSUPPORTED, USAGE, Case
from sandbox import BIN, Hydrant, wait_until


class Pushed(Case):
    def keys(self):
        """Paths of a private key and of its public one."""
        directory = self.temporary()
        secret, public = directory / "secret.pem", directory / "ops.pem"
        subprocess.run(["openssl", "genpkey", "-algorithm", "ED25519", "-out", secret], check=True)
        subprocess.run(["openssl", "pkey", "-in", secret, "-pubout", "-out", public], check=True)
        return secret, public

    def node(self, trusted=None):
        """Another machine, which may know a key."""
        node = Hydrant()
        self.addCleanup(node.close)
        if trusted:
            (node.root / "trust").mkdir(parents=True)
            (node.root / "trust" / trusted.name).write_bytes(trusted.read_bytes())
        return node

    def fallback_tag(self, name, digest):
        return f"http://127.0.0.1:{self.registry.port}/v2/{name}/manifests/{digest.replace(':', '-')}"

    def test_a_second_node_moves_hardly_anything_before_the_first_read(self):
        secret, public = self.keys()
        reference = self.push("many")
        digest = oci.sha256(urllib.request.urlopen(urllib.request.Request(
            f"http://127.0.0.1:{self.registry.port}/v2/many/manifests/latest", headers={"Accept": oci.MANIFEST})).read())
        # Somebody else's entry is there already.
        foreign = {"mediaType": oci.MANIFEST, "digest": digest, "size": 1, "artifactType": "x/y", "odd": [1]}
        body = json.dumps({"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": [foreign]}).encode()
        place = self.fallback_tag("many", digest)
        urllib.request.urlopen(urllib.request.Request(place, body, {"Content-Type": oci.INDEX}, method="PUT"))
        pushed = self.hydrant.ok("index", "--push", "--sign-key", secret, "--json", reference)["pushed"]
        self.hydrant.ok("index", "--push", "--sign-key", secret, reference)
        entries = json.loads(urllib.request.urlopen(
            urllib.request.Request(place, headers={"Accept": oci.INDEX})).read())["manifests"]
        self.assertEqual(entries[0], foreign)
        self.assertEqual([entry["digest"] for entry in entries], [digest, pushed])

        second = self.node(public)
        before = self.registry.bytes_sent()
        mounted = second.mount(reference, "--no-prefetch")
        sent = self.registry.bytes_sent() - before
        facts = second.ok("stat", "--json", mounted)["image"]
        self.assertEqual({layer["pushed"] for layer in facts["layers"]}, {"ops.pem"}, facts)
        self.assertEqual(facts["streamed_bytes"], 0)
        self.assertLess(sent, facts["compressed_bytes"] * 0.02, (sent, facts["compressed_bytes"]))
        self.same_tree(self.unpack("many"), mounted)

    def test_sixty_layers_cost_two_requests_each_at_most_before_the_first_read(self):
        layers = [oci.tar_of({f"layer-{number}/{name}": b"%d\n" % number * 5000 for name in "abc"})
                  for number in range(60)]
        plain, lazy = oci.Image(self.temporary() / "plain"), oci.Image(self.temporary() / "estargz")
        for tar in layers:
            plain.add_layer(tar)
            layer = estargz.Layer(tar)
            lazy.add_layer(layer.tar, stored=layer.stored, annotations=layer.annotations)
        secret, public = self.keys()
        reference = self.push(plain.finish().directory)
        self.hydrant.ok("index", "--push", "--sign-key", secret, reference)
        self.hydrant.ok("convert", reference, reference.replace(":latest", ":lazy"))
        cases = {"pushed": reference, "converted": reference.replace(":latest", ":lazy"),
                 "eStargz": self.push(lazy.finish().directory)}
        for case, name in cases.items():
            with self.subTest(case):
                node = self.node(public)
                before = len(self.registry.answers())
                mounted = node.mount(name, "--no-prefetch")
                asked = self.registry.answers()[before:]
                self.assertLessEqual(len(asked), 2 * 60, asked)
                facts = node.ok("stat", "--json", mounted)["image"]
                self.assertTrue(all(layer["pushed"] or layer["toc"] for layer in facts["layers"]), facts)
                self.assertEqual((mounted / "layer-59/c").read_bytes(), b"59\n" * 5000)

    def test_what_nobody_vouches_for_is_used_when_asked_for_alone_and_then_proven(self):
        reference = self.push("small")
        self.hydrant.ok("index", "--push", reference)
        strict = self.node()
        facts = strict.ok("stat", "--json", strict.mount(reference))["image"]
        self.assertEqual(facts["layers"][0]["pushed"], "")
        self.assertEqual(facts["streamed_bytes"], facts["compressed_bytes"])

        late = self.node()
        mounted = late.mount(reference, "--trust", "late")
        self.assertEqual(late.ok("stat", "--json", mounted)["image"]["streamed_bytes"], 0)
        self.assertEqual((mounted / "hello").read_text(), "hello\n")
        wait_until(lambda: "index.proven" in late.logs(), 60, "the index is proven")
        late.ok("umount", mounted)
        self.assertEqual(late.ok("stat", "--json", late.mount(reference))["image"]["layers"][0]["pushed"], "")

    def test_what_was_read_by_an_index_that_lies_is_read_no_more(self):
        content = {f"file{number}": os.urandom(300_000) for number in range(3)}
        image = oci.Image(self.temporary() / "plain")
        image.add_layer(oci.tar_of(content), media_type=oci.LAYER)
        reference = self.push(image.finish().directory)
        self.hydrant.ok("index", reference)
        [index] = [path for path in (self.hydrant.root / "fetch/indexes").rglob("*") if path.is_file()]
        subprocess.run([BIN / "lying_index", index], check=True)
        self.hydrant.ok("index", "--push", reference)

        late = self.node()
        mounted = late.mount(reference, "--trust", "late", "--no-prefetch")
        self.assertEqual((mounted / "file0").stat().st_mode & 0o777, 0o666, "the lie")
        with open(mounted / "file0", "rb", buffering=0) as file, open(mounted / "file1", "rb") as other:
            self.assertEqual(file.read(), content["file0"])
            with mmap.mmap(other.fileno(), 0, prot=mmap.PROT_READ) as mapped:
                self.assertEqual(mapped[:], content["file1"])
            wait_until(lambda: "object-withdrawn" in late.logs(), 60, "the index is refused")
            for name in ("file0", "file1", "file2"):
                with self.subTest(name), self.assertRaises(OSError):
                    (mounted / name).read_bytes()
            with self.assertRaises(OSError):
                os.pread(file.fileno(), 4096, 0)
        late.ok("umount", mounted)
        again = late.mount(reference)
        self.assertEqual((again / "file0").stat().st_mode & 0o777, 0o644)
        self.assertEqual((again / "file0").read_bytes(), content["file0"])

    def test_a_converted_image_is_mounted_by_its_own_indexes_on_every_node(self):
        reference = self.push("many")
        lazy = self.registry.name("many") + ":lazy"
        done = self.hydrant.ok("convert", "--json", reference, lazy)
        body = urllib.request.urlopen(urllib.request.Request(
            f"http://127.0.0.1:{self.registry.port}/v2/many/manifests/lazy", headers={"Accept": oci.MANIFEST})).read()
        self.assertEqual(oci.sha256(body), done["converted"])
        self.assertEqual(json.loads(body)["annotations"]["vnd.hydrant.index.digest"], done["pushed"])
        second = self.node()
        before = self.registry.bytes_sent()
        mounted = second.mount(lazy, "--no-prefetch")
        sent = self.registry.bytes_sent() - before
        facts = second.ok("stat", "--json", mounted)["image"]
        self.assertEqual({layer["pushed"] for layer in facts["layers"]}, {"the image's manifest"}, facts)
        self.assertLess(sent, facts["compressed_bytes"] * 0.02, (sent, facts["compressed_bytes"]))
        self.same_tree(self.unpack("many"), mounted)
        self.fails(UNSUPPORTED, ["repository", "copy"], "convert", reference, self.registry.name("other") + ":lazy")

    def test_what_cannot_be_pushed_is_named(self):
        reference = self.push("small")
        self.fails(USAGE, ["registries"], "index", "--push", "oci:" + str(self.temporary()))
        self.fails(NOT_FOUND, ["nokey.pem"], "index", "--push", "--sign-key", "/nokey.pem", reference)
        wrong = self.temporary() / "key.pem"
        wrong.write_text("nothing\n")
        self.fails(USAGE, ["private key"], "index", "--push", "--sign-key", wrong, reference)
