"""Writes OCI image layouts and pushes them to a registry: just enough to make good images and broken ones on purpose."""

import gzip
import hashlib
import http.client
import io
import json
import pathlib
import subprocess
import tarfile

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
LAYER_GZIP = LAYER + "+gzip"


def sha256(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def tar_directory(directory, *flags):
    """A layer as GNU tar writes it: sorted, numeric owners, xattrs, sparse maps, nanoseconds."""
    command = ["tar", "--format=posix", "--sort=name", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--sparse",
               *flags, "-C", str(directory), "-cf", "-", "."]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


def tar_of(files):
    """A layer with these files, by name."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


class Image:
    """An OCI layout of one image, tag `latest`, under `directory`."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.layers = []
        self.diff_ids = []
        self.config_type = CONFIG
        self.env = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
        self.command = ["/bin/bash"]
        self.annotations = {}  # of the manifest
        (self.directory / "blobs/sha256").mkdir(parents=True)
        (self.directory / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')

    def blob(self, data, media_type):
        digest = sha256(data)
        (self.directory / "blobs/sha256" / digest[7:]).write_bytes(data)
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def add_layer(self, tar, media_type=LAYER_GZIP, stored=None, diff_id=None, annotations=None):
        """`stored` and `diff_id` replace what would follow from `tar`, to tell lies."""
        if stored is None:
            stored = gzip.compress(tar, 6, mtime=0) if media_type == LAYER_GZIP else tar
        self.layers.append(self.blob(stored, media_type))
        if annotations:
            self.layers[-1]["annotations"] = annotations
        self.diff_ids.append(diff_id or sha256(tar))

    def finish(self):
        config = {"architecture": "amd64", "os": "linux", "config": {"Env": self.env, "Cmd": self.command},
                  "rootfs": {"type": "layers", "diff_ids": self.diff_ids}}
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "layers": self.layers,
                    "config": self.blob(json.dumps(config).encode(), self.config_type)}
        if self.annotations:
            manifest["annotations"] = self.annotations
        descriptor = self.blob(json.dumps(manifest).encode(), MANIFEST)
        descriptor["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor]}
        (self.directory / "index.json").write_text(json.dumps(index))
        return self


def manifest_descriptor(directory):
    return json.loads((pathlib.Path(directory) / "index.json").read_text())["manifests"][0]


def layer_tars(directory):
    """The layers of a layout with gzip layers, decompressed."""
    blobs = pathlib.Path(directory) / "blobs/sha256"
    manifest = json.loads((blobs / manifest_descriptor(directory)["digest"][7:]).read_text())
    return [gzip.decompress((blobs / layer["digest"][7:]).read_bytes()) for layer in manifest["layers"]]


def push(directory, port, name, tag="latest", auth=None, beside=()):
    """Pushes a layout as it is, without looking into it, and manifests (as JSON) `beside` its own, whose blobs it has;
    returns the manifest's digest."""
    directory = pathlib.Path(directory)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Authorization": auth} if auth else {}

    def request(method, url, body=b"", want=(200, 201, 202), **more):
        connection.request(method, url, body, {**headers, **more})
        response = connection.getresponse()
        text = response.read()
        if response.status not in want:
            raise RuntimeError(f"{method} {url}: {response.status} {text[:300]}")
        return response

    def push_blob(descriptor):
        digest = descriptor["digest"]
        if request("HEAD", f"/v2/{name}/blobs/{digest}", want=(200, 404)).status == 200:
            return
        place = request("POST", f"/v2/{name}/blobs/uploads/").getheader("Location")
        place = "/" + place.split("/", 3)[3] if "://" in place else place
        data = (directory / "blobs/sha256" / digest[7:]).read_bytes()
        request("PUT", f"{place}{'&' if '?' in place else '?'}digest={digest}", data,
                **{"Content-Type": "application/octet-stream"})

    descriptor = manifest_descriptor(directory)
    raw = (directory / "blobs/sha256" / descriptor["digest"][7:]).read_bytes()
    manifest = json.loads(raw)
    for blob in [manifest["config"], *manifest["layers"]]:
        push_blob(blob)
    for other in beside:
        for blob in [other["config"], *other["layers"]]:
            push_blob(blob)
        body = json.dumps(other).encode()
        request("PUT", f"/v2/{name}/manifests/{sha256(body)}", body, **{"Content-Type": other["mediaType"]})
    request("PUT", f"/v2/{name}/manifests/{tag}", raw, **{"Content-Type": manifest.get("mediaType", MANIFEST)})
    connection.close()
    return descriptor["digest"]
