"""Time from `hydrant mount` to its return, and requests of the registry until then, of an image of LAYERS layers that comes with
an index: made on this node before, signed beside the image, named by the image's own manifest, or as each eStargz layer's own
table of contents. The registry is on loopback, the daemons run already, nothing of the image is cached. The medians of
ROUNDS roots are printed. Each root is on an ext4 of its own: ext4 looks at every inode that was deleted in the last seconds before it
takes a free one, and the rounds before have deleted theirs."""

import os
import pathlib
import random
import statistics
import subprocess
import tempfile
import time

import estargz
import oci
from sandbox import Hydrant, Registry, small_disk

LAYERS = int(os.environ.get("LAYERS", "60"))
ROUNDS = int(os.environ.get("ROUNDS", "5"))
FILES = 50  # of a layer, about 1 MB


def layer(number):
    noise = random.Random(number)
    return oci.tar_of({f"usr/lib/part-{number}/{file}": noise.randbytes(5000) + b"text\n" * 3000 for file in range(FILES)})


def write_images(work):
    plain, lazy = oci.Image(work / "plain"), oci.Image(work / "estargz")
    for number in range(LAYERS):
        tar = layer(number)
        plain.add_layer(tar)
        table = estargz.Layer(tar)
        lazy.add_layer(table.tar, stored=table.stored, annotations=table.annotations)
    for image in (plain, lazy):
        image.finish()


def mount(registry, reference, public, index_first):
    with small_disk(512) as disk, Hydrant(base=disk) as hydrant:
        (hydrant.root / "trust").mkdir(parents=True)
        (hydrant.root / "trust/ops.pem").write_bytes(public.read_bytes())
        if index_first:
            hydrant.ok("index", reference)
        else:
            hydrant.start_daemons()
        directory, before = hydrant.new_dir(), len(registry.answers())
        start = time.monotonic()
        hydrant.ok("mount", "--no-prefetch", reference, directory)
        took = time.monotonic() - start
        requests = len(registry.answers()) - before
        layers = hydrant.ok("stat", "--json", directory)["image"]["layers"]
        if not index_first and not all(layer["pushed"] or layer["toc"] for layer in layers):
            raise SystemExit("many_layers: layers were streamed, so there was no index")
        return took, requests


def main():
    with tempfile.TemporaryDirectory(prefix="hydrant-bench-") as work, Registry() as registry:
        work = pathlib.Path(work)
        write_images(work)
        secret, public = work / "secret.pem", work / "ops.pem"
        subprocess.run(["openssl", "genpkey", "-algorithm", "ED25519", "-out", secret], check=True)
        subprocess.run(["openssl", "pkey", "-in", secret, "-pubout", "-out", public], check=True)
        for name in ("plain", "estargz"):
            oci.push(work / name, registry.port, name)
        plain, converted, lazy = (registry.name(name) for name in ("plain:latest", "plain:lazy", "estargz:latest"))
        with Hydrant() as pusher:
            pusher.ok("index", "--push", "--sign-key", secret, plain)
            pusher.ok("convert", plain, converted)
        cases = {"indexed here": (plain, True), "pushed": (plain, False), "converted": (converted, False),
                 "eStargz": (lazy, False)}
        figures = {case: [] for case in cases}
        for _ in range(ROUNDS):
            for case, (reference, index_first) in cases.items():
                figures[case].append(mount(registry, reference, public, index_first))
    for case, rounds in figures.items():
        took, requests = (statistics.median(values) for values in zip(*rounds))
        print(f"{LAYERS} layers, {case:12}  mounted in {took:.3f} s, {requests:.0f} requests before the first read")


if __name__ == "__main__":
    main()
