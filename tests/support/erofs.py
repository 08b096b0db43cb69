"""EROFS images by mkfs.erofs, and what the kernel makes of them."""

import hashlib
import pathlib
import struct
import subprocess
import tempfile

import oci

LAYER = "application/vnd.erofs.layer.v1"  # containerd's
IMAGE = "application/vnd.erofs"  # of the EROFS image layer specification
CHUNK_INDEX = "application/vnd.erofs.chunk-index.v1"


def make(tree, *flags):
    """The bytes of an image of `tree`."""
    with tempfile.NamedTemporaryFile() as image:
        subprocess.run(["mkfs.erofs", "--quiet", *flags, image.name, str(tree)], check=True, stdout=subprocess.DEVNULL)
        return pathlib.Path(image.name).read_bytes()


class Chunked:
    """An image in chunks: `stored`, with its chunk index behind the data and bound by `annotations`, or `apart` from it."""

    def __init__(self, image, chunk=256 << 10, zstd=True):
        data, entries = b"", b""
        for at in range(0, len(image), chunk):
            piece = image[at:at + chunk]
            if zstd:
                piece = subprocess.run(["zstd", "-qc"], input=piece, stdout=subprocess.PIPE, check=True).stdout
            entries += struct.pack("<QQ", len(data), at) + hashlib.sha256(piece).digest()
            data += piece
        self.apart = bytes.fromhex("cde4ec67") + struct.pack("<BBHQIBB10x", 1, int(zstd), 0, len(image),
                                                             len(entries) // 48, 1, 32) + entries
        frame = struct.pack("<II", 0x184D2A50, len(self.apart)) if zstd else b""
        self.data = data
        self.stored = data + frame + self.apart
        self.plain = image if zstd else self.stored  # what the diff_id is of
        self.annotations = {"org.erofs.chunk-index.range": f"{len(data)}:{len(self.stored)}",
                            "org.erofs.chunk-index.digest": oci.sha256(self.apart),
                            "org.erofs.uncompressed-digest": oci.sha256(self.plain)}
        self.media_type = IMAGE + ("+zstd" if zstd else "")


def mount(image, directory):
    """The kernel's own mount of those bytes, in the test's namespace: nobody need unmount it."""
    file = pathlib.Path(tempfile.mkstemp(dir=directory)[1])
    file.write_bytes(image)
    target = pathlib.Path(tempfile.mkdtemp(dir=directory))
    subprocess.run(["mount", "-t", "erofs", "-o", "ro,loop", str(file), str(target)], check=True)
    return target


def overlay(images, directory):
    """The kernel's overlay of such mounts, bottom first."""
    lowers = [str(mount(image, directory)) for image in images]
    target = pathlib.Path(tempfile.mkdtemp(dir=directory))
    subprocess.run(["mount", "-t", "overlay", "-o", "lowerdir=" + ":".join(reversed(lowers)), "overlay", str(target)],
                   check=True)
    return target
