"""Makes the indexes that SOCI makes, by the descriptions of its formats: zTOCs (FlatBuffers) with checkpoints as zlib finds
them, and the manifest that names them. Nothing here is shared with the program's own reader."""

import ctypes
import datetime
import decimal
import gzip
import io
import struct
import tarfile

import oci

V1 = "application/vnd.amazon.soci.index.v1+json"
V2 = "application/vnd.amazon.soci.index.v2+json"
INDEX_DIGEST = "com.amazon.soci.index-digest"
WINDOW = 32768
TYPES = {tarfile.REGTYPE: "reg", tarfile.AREGTYPE: "reg", tarfile.LNKTYPE: "hardlink", tarfile.SYMTYPE: "symlink",
         tarfile.CHRTYPE: "char", tarfile.BLKTYPE: "block", tarfile.DIRTYPE: "dir", tarfile.FIFOTYPE: "fifo"}


class Stream(ctypes.Structure):
    """z_stream."""
    _fields_ = [("next_in", ctypes.c_void_p), ("avail_in", ctypes.c_uint), ("total_in", ctypes.c_ulong),
                ("next_out", ctypes.c_void_p), ("avail_out", ctypes.c_uint), ("total_out", ctypes.c_ulong),
                ("msg", ctypes.c_char_p), ("state", ctypes.c_void_p), ("zalloc", ctypes.c_void_p),
                ("zfree", ctypes.c_void_p), ("opaque", ctypes.c_void_p), ("data_type", ctypes.c_int),
                ("adler", ctypes.c_ulong), ("reserved", ctypes.c_ulong)]


def checkpoints(stored, plain, span):
    """(stored offset, plain offset, bits) of block boundaries at least `span` plain bytes apart, the first behind the
    header."""
    zlib = ctypes.CDLL("libz.so.1")
    stream = Stream()
    assert zlib.inflateInit2_(ctypes.byref(stream), 31, b"1.2.11", ctypes.sizeof(stream)) == 0
    source = ctypes.create_string_buffer(stored, len(stored))
    target = ctypes.create_string_buffer(len(plain) + 1)
    stream.next_in, stream.avail_in = ctypes.addressof(source), len(stored)
    stream.next_out, stream.avail_out = ctypes.addressof(target), len(plain) + 1
    points = []
    while True:
        status = zlib.inflate(ctypes.byref(stream), 5)  # Z_BLOCK
        if status == 1:
            break
        assert status == 0, status
        boundary = stream.data_type & 128 and not stream.data_type & 64
        if boundary and (not points or stream.total_out - points[-1][1] > span):
            points.append((stream.total_in, stream.total_out, stream.data_type & 7))
    assert target.raw[:len(plain)] == plain
    zlib.inflateEnd(ctypes.byref(stream))
    return points


class Builder:
    """Writes a FlatBuffer from its end to its beginning, as their own builders do: what is pointed to first."""

    def __init__(self):
        self.tail = b""

    def bytes(self, data):
        padded = data + bytes(-len(data) % 4)
        self.tail = bytes(-len(self.tail) % 4) + self.tail
        self.tail = struct.pack("<I", len(data)) + padded + self.tail
        return len(self.tail)  # places are counted from the end

    def text(self, text):
        data = text.encode("utf-8", "surrogateescape")
        place = self.bytes(data + b"\0")
        self.tail = struct.pack("<I", len(data)) + self.tail[4:]
        return place

    def offset(self, place, behind):
        """To `place`, from a field that has `behind` bytes behind its start once it stands."""
        return struct.pack("<I", behind - place)

    def vector(self, places):
        self.tail = bytes(-len(self.tail) % 4) + self.tail
        for place in reversed(places):
            self.tail = self.offset(place, len(self.tail) + 4) + self.tail
        self.tail = struct.pack("<I", len(places)) + self.tail
        return len(self.tail)

    def table(self, fields):
        """`fields`: number -> (format, value), or ("ref", place)."""
        self.tail = bytes(-len(self.tail) % 8) + self.tail
        end = len(self.tail)
        places = {}
        for number in sorted(fields, reverse=True):
            kind, value = fields[number]
            if kind == "ref":
                self.tail = self.offset(value, len(self.tail) + 4) + self.tail
            else:
                self.tail = struct.pack("<" + kind, value) + self.tail
            places[number] = len(self.tail)
        self.tail = bytes(4) + self.tail  # where the vtable is, below
        start = len(self.tail)
        count = max(fields) + 1
        slots = b"".join(struct.pack("<H", start - places[n] if n in places else 0) for n in range(count))
        vtable = struct.pack("<HH", 4 + len(slots), start - end) + slots
        self.tail = struct.pack("<i", len(vtable)) + self.tail[4:]
        self.tail = vtable + self.tail
        return start

    def finish(self, root):
        self.tail = bytes(-(len(self.tail) + 4) % 8) + self.tail
        return self.offset(root, len(self.tail) + 4) + self.tail


def rfc3339(member):
    time = decimal.Decimal(member.pax_headers.get("mtime", member.mtime))
    seconds = int(time // 1)
    text = (datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=seconds)).isoformat()
    nanoseconds = f"{int((time - seconds) * 10**9):09}".rstrip("0")
    return text + ("." + nanoseconds if nanoseconds else "") + "Z"


def ztoc(stored, span=256 << 10, spoil_window=False):
    """Of a gzip layer."""
    plain = gzip.decompress(stored)
    points = checkpoints(stored, plain, span)
    zinfo = struct.pack("<IQ", len(points), span)
    digests = []
    for number, (at, plain_at, bits) in enumerate(points):
        window = plain[max(0, plain_at - WINDOW):plain_at].rjust(WINDOW, b"\0")
        if spoil_window and number == len(points) // 2:
            window = bytes(byte ^ 1 for byte in window)
        zinfo += struct.pack("<QQB", at, plain_at, bits) + window
        end = points[number + 1][0] if number + 1 < len(points) else len(stored)
        digests.append(oci.sha256(stored[at - (1 if bits else 0):end]))
    builder = Builder()
    files = []
    with tarfile.open(fileobj=io.BytesIO(plain), errors="surrogateescape") as archive:
        for member in archive:
            records = [builder.table({0: ("ref", builder.text(key)), 1: ("ref", builder.text(value))})
                       for key, value in sorted(member.pax_headers.items())]
            size = member.size if member.isreg() else 0
            kind = TYPES[member.type]
            name = member.name + "/" if kind == "dir" else member.name
            fields = {0: ("ref", builder.text(name)), 1: ("ref", builder.text(kind)),
                      4: ("ref", builder.text(member.linkname)), 8: ("ref", builder.text(member.uname)),
                      9: ("ref", builder.text(member.gname)), 10: ("ref", builder.text(rfc3339(member))),
                      13: ("ref", builder.vector(records)), 2: ("q", member.offset_data), 3: ("q", size),
                      5: ("q", member.mode), 6: ("I", member.uid), 7: ("I", member.gid), 11: ("q", member.devmajor),
                      12: ("q", member.devminor)}
            # Defaults are left out, as the format wants it.
            files.append(builder.table({n: f for n, f in fields.items() if f[0] == "ref" or f[1]}))
    toc = builder.table({0: ("ref", builder.vector(files))})
    spans = builder.vector([builder.text(digest) for digest in digests])
    info = {2: ("ref", spans), 3: ("ref", builder.bytes(zinfo))}
    if len(points) > 1:
        info[1] = ("i", len(points) - 1)
    compression = builder.table(info)
    root = builder.table({0: ("ref", builder.text("0.9")), 1: ("ref", builder.text("a test")), 2: ("q", len(stored)),
                          3: ("q", len(plain)), 4: ("ref", toc), 5: ("ref", compression)})
    return builder.finish(root)


def index(image, layers, artifact_type, subject=None, **options):
    """Puts the zTOCs of these layers (digest -> stored bytes) into the image's layout; yields the manifest that names
    them."""
    ztocs = []
    for digest, stored in layers.items():
        descriptor = image.blob(ztoc(stored, **options), "application/octet-stream")
        descriptor["annotations"] = {"com.amazon.soci.image-layer-digest": digest,
                                     "com.amazon.soci.image-layer-mediaType": oci.LAYER_GZIP}
        ztocs.append(descriptor)
    manifest = {"schemaVersion": 2, "mediaType": oci.MANIFEST, "artifactType": artifact_type,
                "config": image.blob(b"{}", artifact_type), "layers": ztocs}
    if subject:
        manifest["subject"] = subject
    return manifest
