"""EROFS images with compressed files, put together extent by extent: what Debian's mkfs.erofs does not make (deflate,
zstd, LZMA, fragments, shared and rotated clusters). The kernel is the judge of them."""

import ctypes
import struct
import subprocess
import zlib

BLOCK = 4096
LZ4, LZMA, DEFLATE, ZSTD, PLAIN = 0, 1, 2, 3, None
INODES = 16  # blocks of them, behind the superblock's
LONG_CLUSTERS, ROTATED, FRAGMENT = 0x6, 0x10, 0x20  # a file's flags
HEAD_PLAIN, HEAD1, INSIDE, HEAD2 = range(4)


def deflate(data):
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


class Stream(ctypes.Structure):
    """liblzma's lzma_stream."""
    _fields_ = [("next_in", ctypes.c_char_p), ("avail_in", ctypes.c_size_t), ("total_in", ctypes.c_uint64),
                ("next_out", ctypes.c_void_p), ("avail_out", ctypes.c_size_t), ("total_out", ctypes.c_uint64),
                ("rest", ctypes.c_uint64 * 11)]


def micro_lzma(data):
    """Python's own encoder ends streams with a mark that these must not have."""
    library = ctypes.CDLL("liblzma.so.5")
    options = (ctypes.c_uint32 * 64)()
    assert library.lzma_lzma_preset(options, 1) == 0
    options[0] = 1 << 16  # the dictionary's size
    out = ctypes.create_string_buffer(len(data) * 2 + 1024)
    stream = Stream(data, len(data), 0, ctypes.addressof(out), len(out), 0)
    assert library.lzma_microlzma_encoder(ctypes.byref(stream), options) == 0
    assert library.lzma_code(ctypes.byref(stream), 3) == 1 and stream.avail_in == 0
    library.lzma_end(ctypes.byref(stream))
    return out.raw[:stream.total_out]


def zstd(data):
    return subprocess.run(["zstd", "-qc", "--no-check", "--zstd=wlog=17"], input=data, stdout=subprocess.PIPE, check=True).stdout


def lz4_literals(data):
    """LZ4 that finds nothing to refer to."""
    out = bytes([0xf0])
    left = len(data) - 15
    assert left >= 0
    while left >= 255:
        out += b"\xff"
        left -= 255
    return out + bytes([left]) + data


PACK = {LZ4: lz4_literals, LZMA: micro_lzma, DEFLATE: deflate, ZSTD: zstd}
CONFIGS = {LZ4: struct.pack("<HH10x", 65535, 256), LZMA: struct.pack("<IH8x", 1 << 16, 0),
           DEFLATE: struct.pack("<B5x", 15), ZSTD: struct.pack("<BB4x", 0, 10)}


class Cluster:
    def __init__(self, algorithm, block, blocks):
        self.algorithm, self.block, self.blocks = algorithm, block, blocks


class Image:
    def __init__(self):
        self.data = bytearray((1 + INODES) * BLOCK)
        self.inodes = BLOCK + 32  # where the next one goes; readdir hides a number 0
        self.names = {}
        self.packed_nid = 0
        self.used = 0

    def blocks(self, data):
        at = len(self.data) // BLOCK
        self.data += data
        return at

    def cluster(self, algorithm, data, rotate=0):
        """Of `data`, as it is or compressed; `rotate`: where in a block of the file it begins."""
        if algorithm is PLAIN:
            whole = data.ljust(-len(data) % BLOCK + len(data), b"\0")
            stored = whole if not rotate else whole[BLOCK - rotate:] + whole[:BLOCK - rotate]
        else:
            self.used |= 1 << algorithm
            stored = PACK[algorithm](data)
            stored = stored.rjust(-len(stored) % BLOCK + len(stored), b"\0")
        return Cluster(algorithm, self.blocks(stored), len(stored) // BLOCK)

    def inode(self, layout, mode, size, u, behind):
        at = -(-self.inodes // 32) * 32
        self.inodes = at + 64 + len(behind)
        assert self.inodes <= (1 + INODES) * BLOCK
        struct.pack_into("<HHHHQIIIIqII16x", self.data, at, layout << 1 | 1, 0, mode, 0, size, u, 0, 0, 0,
                         1_700_000_000, 0, 1)
        self.data[at + 64:at + 64 + len(behind)] = behind
        return (at - BLOCK) // 32

    def _index(self, extents, size, second):
        heads, at = {}, 0
        for cluster, length, partial in extents:
            kind = HEAD1 if cluster is None else HEAD_PLAIN if cluster.algorithm is PLAIN else (
                HEAD2 if cluster.algorithm == second else HEAD1)
            assert at // BLOCK not in heads, "one extent begins in a logical cluster"
            heads[at // BLOCK] = (kind | (0x8000 if partial else 0), at % BLOCK, cluster)
            at += length
        assert at == size
        count, out = -(-size // BLOCK), b""
        for number in range(count):
            if number in heads:
                kind, offset, cluster = heads[number]
                out += struct.pack("<HHI", kind, offset, cluster.block if cluster else 0)
                head = number
                continue
            behind = next((n for n in range(number, count) if n in heads), count)
            cluster = heads[head][2]
            first = number - head
            if first == 1 and cluster:
                first = 1 << 11 | cluster.blocks
            out += struct.pack("<HHHH", INSIDE, 0, first, behind - number)
        return out

    def _packed(self, extents, fragment=None, rotated=False):
        """`extents`: (cluster, length[, partial]); the last one's cluster is None where it is a fragment."""
        extents = [(*each, False)[:3] for each in extents]
        algorithms = []
        for cluster, _, _ in extents:
            if cluster and cluster.algorithm is not PLAIN and cluster.algorithm not in algorithms:
                algorithms.append(cluster.algorithm)
        algorithms = (algorithms or [LZ4]) + [LZ4]
        second = algorithms[1] if len(algorithms) > 2 else -1
        self.used |= 1 << algorithms[0]
        size = sum(length for _, length, _ in extents)
        advise = LONG_CLUSTERS | (ROTATED if rotated else 0) | (FRAGMENT if fragment is not None else 0)
        header = struct.pack("<IHBB", fragment or 0, advise, algorithms[0] | algorithms[1] << 4, 0)
        index = self._index(extents, size, second)
        stored = sum(cluster.blocks for cluster, _, _ in extents if cluster)
        return self.inode(1, 0o100644, size, stored, header + bytes(8) + index)

    def file(self, name, *args, **options):
        self.names[name] = (self._packed(*args, **options), 1)

    def packed_inode(self, *args, **options):
        self.packed_nid = self._packed(*args, **options)

    def file_in_fragments(self, name, size, offset):
        """All of it stands in the packed inode."""
        self.used |= 1 << LZ4
        self.names[name] = (self.inode(1, 0o100644, size, 0, struct.pack("<Q", 1 << 63 | offset)), 1)

    def bytes(self):
        # The root is made last: it is one block, and its number must be small.
        names = dict(sorted({**self.names, ".": (0, 2), "..": (0, 2)}.items(), key=lambda each: each[0].encode()))
        length = 12 * len(names) + sum(len(name) for name in names)
        assert length <= BLOCK
        root = self.inode(0, 0o040755, length, len(self.data) // BLOCK, b"")
        heads, texts = b"", b""
        for name, (nid, kind) in names.items():
            heads += struct.pack("<QHBB", root if kind == 2 else nid, 12 * len(names) + len(texts), kind, 0)
            texts += name.encode()
        self.blocks((heads + texts).ljust(BLOCK, b"\0"))
        configs = b"".join(struct.pack("<H", len(CONFIGS[each])) + CONFIGS[each] for each in range(4)
                           if self.used >> each & 1)
        superblock = struct.pack("<IIIBBHQQIIII16s16sIHHHBBIQ24x", 0xE0F5E1E2, 0, 0, 12, 0, root, len(self.names) + 1, 0,
                                 0, len(self.data) // BLOCK, 1, 0, bytes(16), bytes(16), 0x1 | 0x2 | 0x8 | 0x20, self.used,
                                 0, 0, 0, 0, 0, self.packed_nid)
        self.data[1024:1024 + len(superblock) + len(configs)] = superblock + configs
        return bytes(self.data)


def words(seed, size):
    """Text that compresses, and is nowhere the same."""
    import random
    source = random.Random(seed)
    vocabulary = [source.randbytes(source.randrange(2, 9)).hex() for _ in range(300)]
    out = ""
    while len(out) < size:
        out += source.choice(vocabulary) + " "
    return out[:size].encode()


def everything():
    """An image with every form of compression, and what its files hold."""
    image, content = Image(), {}
    for name, algorithm in (("lzma", LZMA), ("deflate", DEFLATE), ("zstd", ZSTD)):
        data = words(algorithm, 250_000)
        extents, at = [], 0
        for length in (30_000, 4096, 65_537, 100_000, 50_367):
            extents.append((image.cluster(algorithm, data[at:at + length]), length))
            at += length
        image.file(name, extents)
        content[name] = data
    # Two algorithms, and what is not compressed, rotated to where it stands in its block.
    data = words(7, 90_000)
    parts = [(DEFLATE, 20_001), (PLAIN, 4096), (ZSTD, 40_000), (PLAIN, 3000), (LZ4, 22_903)]
    extents, at = [], 0
    for algorithm, length in parts[:-1]:
        piece = data[at:at + length]
        extents.append((image.cluster(algorithm, piece, at % BLOCK if algorithm is PLAIN else 0), length))
        at += length
    extents.append((image.cluster(DEFLATE, data[at:]), len(data) - at))
    image.file("mixed", extents, rotated=True)
    content["mixed"] = data
    # Not rotated, and shared: the beginning of what another file's clusters hold.
    shared = words(8, 61_440)
    for name, algorithm in (("deflate", DEFLATE), ("zstd", ZSTD), ("lzma", LZMA), ("lz4", LZ4)):
        cluster = image.cluster(algorithm, shared)
        plain = image.cluster(PLAIN, shared[:4096])
        image.file(f"shared-{name}", [(cluster, 61_440), (plain, 4096)])
        image.file(f"sharing-{name}", [(plain, 4096, True), (cluster, 33_333, True)])
        content[f"shared-{name}"] = shared + shared[:4096]
        content[f"sharing-{name}"] = shared[:4096] + shared[:33_333]
    # Fragments: the ends of files, and whole files.
    fragments = words(9, 200_000)
    extents, at = [], 0
    for length in (100_000, 50_000, 50_000):
        extents.append((image.cluster(ZSTD, fragments[at:at + length]), length))
        at += length
    image.packed_inode(extents)
    for name, size, at in (("all", 5_000, 140_000), ("small", 17, 3), ("long", 120_000, 70_000), ("again", 5_000, 140_000)):
        image.file_in_fragments(f"fragment-{name}", size, at)
        content[f"fragment-{name}"] = fragments[at:at + size]
    head = words(10, 12_345)
    image.file("fragment-tail", [(image.cluster(DEFLATE, head), len(head)), (None, 9_999)], fragment=99_990)
    content["fragment-tail"] = head + fragments[99_990:99_990 + 9_999]
    return image.bytes(), content
