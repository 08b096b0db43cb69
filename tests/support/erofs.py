"""EROFS images by mkfs.erofs, and what the kernel makes of them."""

import pathlib
import subprocess
import tempfile

LAYER = "application/vnd.erofs.layer.v1"  # containerd's
IMAGE = "application/vnd.erofs"  # of the EROFS image layer specification
CHUNK_INDEX = "application/vnd.erofs.chunk-index.v1"


def make(tree, *flags):
    """The bytes of an image of `tree`."""
    with tempfile.NamedTemporaryFile() as image:
        subprocess.run(["mkfs.erofs", "--quiet", *flags, image.name, str(tree)], check=True, stdout=subprocess.DEVNULL)
        return pathlib.Path(image.name).read_bytes()


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
