"""Writes eStargz layers by the format's description: a gzip member for each chunk of a file's data, a table of
contents, a footer that says where it is. Nothing here is shared with the program's own reader."""

import base64
import datetime
import decimal
import gzip
import io
import json
import struct
import tarfile

import oci

TOC_DIGEST = "containerd.io/snapshot/stargz/toc.digest"
TYPES = {tarfile.REGTYPE: "reg", tarfile.AREGTYPE: "reg", tarfile.GNUTYPE_SPARSE: "reg", tarfile.LNKTYPE: "hardlink",
         tarfile.SYMTYPE: "symlink", tarfile.CHRTYPE: "char", tarfile.BLKTYPE: "block", tarfile.DIRTYPE: "dir",
         tarfile.FIFOTYPE: "fifo"}


def modtime(member):
    time = decimal.Decimal(member.pax_headers.get("mtime", member.mtime))
    seconds = int(time // 1)
    nanoseconds = int((time - seconds) * 10**9)
    text = (datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=seconds)).isoformat()
    return f"{text}.{nanoseconds:09}Z"


class Layer:
    """`stored`, the `tar` that it decompresses to, and the manifest's `annotations`. With `share` small files stand in
    one member together with their headers."""

    def __init__(self, tar, chunk=4 << 20, share=0):
        self.stored = bytearray()
        self.plain = bytearray()
        self.pending = bytearray()  # headers and padding that have no member yet
        self.chunk, self.share = chunk, share
        self.entries = []
        self.add_file(tarfile.TarInfo(".no.prefetch.landmark"), b"\x0f", {})
        with tarfile.open(fileobj=io.BytesIO(tar), errors="surrogateescape") as archive:
            for member in archive:
                self.add(archive, member)
        self.finish()

    def add(self, archive, member):
        kind = TYPES[member.type]
        data = archive.extractfile(member).read() if kind == "reg" else b""
        entry = {"mode": member.mode, "uid": member.uid, "gid": member.gid, "modtime": modtime(member)}
        if kind in ("hardlink", "symlink"):
            entry["linkName"] = member.linkname
        if kind in ("char", "block"):
            entry.update(devMajor=member.devmajor, devMinor=member.devminor)
        prefix = "SCHILY.xattr."
        xattrs = {name[len(prefix):]: base64.b64encode(value.encode("utf-8", "surrogateescape")).decode()
                  for name, value in member.pax_headers.items() if name.startswith(prefix)}
        if xattrs:
            entry["xattrs"] = xattrs
        # In the tar that a gzip reader sees, holes are zeros.
        member.pax_headers = {name: value for name, value in member.pax_headers.items()
                              if not name.startswith("GNU.sparse.") and name != "size"}
        member.size = len(data)
        if kind == "reg":
            member.type = tarfile.REGTYPE
            return self.add_file(member, data, entry)
        self.pending += member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        name = member.name + "/" if kind == "dir" and member.name != "." else member.name
        self.entries.append({"name": name, "type": kind, **entry})

    def add_file(self, member, data, entry):
        member.size = len(data)
        self.pending += member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        entry = {"name": member.name, "type": "reg", "size": len(data), **entry}
        if data:
            entry["digest"] = oci.sha256(data)
        if data and len(data) <= self.share:
            entry.update(offset=len(self.stored), innerOffset=len(self.pending), chunkDigest=entry["digest"])
            self.pending += data
            self.entries.append(entry)
        else:
            if data:
                self.flush()
            for at in range(0, len(data), self.chunk):
                piece = data[at:at + self.chunk]
                if at:
                    entry = {"name": member.name, "type": "chunk", "chunkOffset": at}
                entry["offset"] = len(self.stored)
                entry["chunkDigest"] = oci.sha256(piece)
                if len(data) > self.chunk:
                    entry["chunkSize"] = len(piece)
                self.member(piece)
                self.entries.append(entry)
            if not data:
                self.entries.append(entry)
        self.pending += bytes(-len(data) % 512)
        if len(self.pending) > (1 << 20):
            self.flush()

    def member(self, plain):
        self.plain += plain
        self.stored += gzip.compress(plain, 6, mtime=0)

    def flush(self):
        if self.pending:
            self.member(bytes(self.pending))
            self.pending.clear()

    def finish(self):
        self.flush()
        document = json.dumps({"version": 1, "entries": self.entries}).encode()
        info = tarfile.TarInfo("stargz.index.json")
        info.size = len(document)
        offset = len(self.stored)
        self.member(info.tobuf() + document + bytes(-len(document) % 512) + bytes(1024))
        field = b"%016xSTARGZ" % offset
        extra = b"SG" + struct.pack("<H", len(field)) + field
        self.stored += (b"\x1f\x8b\x08\x04\0\0\0\0\0\xff" + struct.pack("<H", len(extra)) + extra +
                        b"\x01\0\0\xff\xff" + bytes(8))
        self.annotations = {TOC_DIGEST: oci.sha256(document)}
        self.stored, self.tar = bytes(self.stored), bytes(self.plain)
