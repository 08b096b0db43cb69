"""Two images in a registry that wants a password, and a file, whose content is known."""

import hashlib
import os

import oci
import oracle
from sandbox import Registry

MEGA = 1 << 20
USER, PASSWORD = "somebody", "swordfish"


class Origins:
    """A registry with two images, and a file. `content` is what each mount must show: {name: {path: SHA-256}}. With `tokens` (a
    TokenService for USER) the registry wants those."""

    def __init__(self, directory, choose, scale=1, tokens=None):
        self.registry = Registry(access=tokens.access) if tokens else Registry(USER, PASSWORD)
        if tokens:
            self.registry.auth = "Bearer " + tokens.token(("pull", "push"))
        self.host = self.registry.name("")[:-1]
        self.sources, self.content = {}, {}
        for name, size in (("streamed", int(4 * MEGA * scale)), ("indexed", int(16 * MEGA * scale))):
            tree = directory / f"{name}.tree"
            tree.mkdir()
            (tree / "big").write_bytes(choose.randbytes(size))
            for number in range(40):
                (tree / f"small{number}").write_bytes(choose.randbytes(choose.randrange(20000)))
            image = oci.Image(directory / name)
            image.add_layer(oci.tar_directory(tree))
            image.finish()
            oci.push(image.directory, self.registry.port, name, auth=self.registry.auth)
            self.sources[name] = self.registry.name(name) + ":latest"
            self.content[name] = {path.name: sha256(path) for path in tree.iterdir()}
        oracle.write(directory / "oracle.bin", int(6144 * scale))
        self.sources["file"] = f"file://{directory}/oracle.bin"
        self.content["file"] = {"oracle.bin": sha256(directory / "oracle.bin")}

    def go_by(self, port):
        """The images are asked for at another port, from who stands in front of the registry."""
        for name in ("streamed", "indexed"):
            self.sources[name] = self.registry.name(name, port) + ":latest"
        self.host = self.registry.name("", port)[:-1]

    def log_in(self, hydrant):
        hydrant.log_in(self.host, USER, PASSWORD)

    def look(self, name, directory):
        """What a mount of it shows: how many files are right, and of the others, what is wrong (path) or failed (an error)."""
        good, wrong, failed = 0, [], []
        for path, digest in self.content[name].items():
            try:
                if sha256(directory / path) == digest:
                    good += 1
                else:
                    wrong.append(f"{name}: {path} has wrong bytes")
            except OSError as error:
                failed.append(f"{name}: {path}: {error}")
        return good, wrong, failed

    def close(self):
        self.registry.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def sha256(path):
    """Of the file as the cache has it: what the kernel holds is dropped first."""
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return hashlib.file_digest(file, "sha256").hexdigest()
