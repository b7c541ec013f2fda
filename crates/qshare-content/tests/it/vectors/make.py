#!/usr/bin/env python3
"""Makes hash_tree.txt, the vectors that qshare's hash tree is tested against.

    ./make.py > hash_tree.txt
    ./make.py --against-libtorrent    # prints nothing but what differs

Written from BEP 52 and hashlib alone, without a look at the Rust code, so that the two can only
agree where both are right. With --against-libtorrent the same files are made on disk (one of 17 GB,
sparse) and hashed by libtorrent (Debian: python3-libtorrent), whose `pieces root` and, with pieces
as large as our chunks, `piece layers` must be these roots and chunk hashes. The committed vectors
were compared so, with libtorrent 2.0.8; of the empty file BitTorrent has no root.
"""

import hashlib
import os
import sys
import tempfile

KIB = 1024
MIB = 1024 * KIB
LEAF = 16 * KIB


def chunk_bytes(length):
    """Largest power of two not above length/512, between 128 KiB and 4 MiB."""
    size = 128 * KIB
    while size < 4 * MIB and 2 * size * 512 <= length:
        size *= 2
    return size


DENSE_PERIOD = 65521  # A prime, so that no two leaves are alike.


class Dense:
    """Byte i is (i mod 65521)² >> 7, its lowest eight bits."""

    name = "dense"

    def __init__(self, length):
        self.length = length
        period = bytes((i * i >> 7) & 255 for i in range(DENSE_PERIOD))
        self.bytes = (period * (length // DENSE_PERIOD + 1))[:length]

    def leaf(self, index):
        return self.bytes[index * LEAF : (index + 1) * LEAF]

    def write(self, file):
        file.write(self.bytes)


class Sparse:
    """Zeros, except that byte i * 1,000,000,007 is 1 + i."""

    name = "sparse"
    STEP = 1_000_000_007

    def __init__(self, length):
        self.length = length
        self.marks = {i * self.STEP: 1 + i for i in range(-(-length // self.STEP))}

    def leaf(self, index):
        start = index * LEAF
        leaf = bytearray(min(LEAF, self.length - start))
        mark = -(-start // self.STEP) * self.STEP
        if mark in self.marks and mark < start + len(leaf):
            leaf[mark - start] = self.marks[mark]
        return bytes(leaf)

    def write(self, file):
        file.truncate(self.length)
        for position, byte in self.marks.items():
            file.seek(position)
            file.write(bytes([byte]))


def sha256(data):
    return hashlib.sha256(data).digest()


ZERO_LEAF = bytes(LEAF)
ZERO_LEAF_HASH = sha256(ZERO_LEAF)


def leaf_hash(leaf):
    """Saves hashing gigabytes of zeros."""
    return ZERO_LEAF_HASH if leaf == ZERO_LEAF else sha256(leaf)


def root_over(hashes, count, filler):
    """Root of the tree over `hashes`, with `filler` up to `count`, a power of two."""
    layer = list(hashes)
    while count > 1:
        if len(layer) % 2:
            layer.append(filler)
        layer = [sha256(layer[i] + layer[i + 1]) for i in range(0, len(layer), 2)]
        filler = sha256(filler + filler)
        count //= 2
    return layer[0]


def power_of_two_from(count):
    return 1 << (count - 1).bit_length() if count else 1


def chunk_hashes(content):
    """The layer of the tree at the height of a chunk; of a file of one chunk, its root."""
    leaves = -(-content.length // LEAF) or 1
    layer = [leaf_hash(content.leaf(i)) for i in range(leaves)]
    per_chunk = chunk_bytes(content.length) // LEAF
    if leaves <= per_chunk:
        return [root_over(layer, power_of_two_from(leaves), bytes(32))]
    return [
        root_over(layer[i : i + per_chunk], per_chunk, bytes(32))
        for i in range(0, leaves, per_chunk)
    ]


def root_of(content, chunks):
    filler = root_over([bytes(32)], chunk_bytes(content.length) // LEAF, bytes(32))
    return root_over(chunks, power_of_two_from(len(chunks)), filler)


def contents():
    chunk = 128 * KIB
    for length in [
        0, 1, 63, 64, 65, LEAF - 1, LEAF, LEAF + 1, 2 * LEAF - 1, 2 * LEAF, 2 * LEAF + 1,
        3 * LEAF, 5 * LEAF + 77, chunk - LEAF, chunk - 1, chunk, chunk + 1, chunk + LEAF,
        2 * chunk - 1, 2 * chunk, 2 * chunk + 1, 3 * chunk, 5 * chunk + 3 * LEAF + 5,
        37 * chunk + 1, 64 * chunk, 1_000_003, 20_000_000,
    ]:
        yield Dense(length)
    # Where the size of chunks changes, and more chunks (4,101) than a page has hashes (4,096).
    for length in [
        128 * MIB - 1, 128 * MIB, 256 * MIB + 1, 2048 * MIB - 1, 2048 * MIB,
        4100 * 4 * MIB + 12_345,
    ]:
        yield Sparse(length)


def hashes_by_libtorrent(content):
    """Root, and the layer of chunk hashes, empty if the file is not larger than a chunk."""
    import libtorrent

    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "file")
        with open(path, "wb") as file:
            content.write(file)
        files = libtorrent.file_storage()
        files.add_file("file", content.length)
        torrent = libtorrent.create_torrent(
            files, chunk_bytes(content.length), libtorrent.create_torrent.v2_only
        )
        libtorrent.set_piece_hashes(torrent, directory)
        made = torrent.generate()
        root = made[b"info"][b"file tree"][b"file"][b""][b"pieces root"]
        return root, made.get(b"piece layers", {}).get(root, b"")


def main():
    compare = "--against-libtorrent" in sys.argv
    if not compare:
        print("# Made by make.py. A line: content, length, chunk bytes, chunks, root,")
        print("# SHA-256 of all chunk hashes one after the other, content id.")
    for content in contents():
        chunks = chunk_hashes(content)
        root = root_of(content, chunks)
        layer = b"".join(chunks)
        if compare:
            if content.length:
                theirs = hashes_by_libtorrent(content)
                if theirs != (root, layer if len(chunks) > 1 else b""):
                    print("differs:", content.name, content.length)
            continue
        identity = sha256(b"qshare/content/1" + content.length.to_bytes(8, "little") + root)
        fields = [content.name, content.length, chunk_bytes(content.length), len(chunks)]
        print(*fields, root.hex(), sha256(layer).hex(), identity.hex(), flush=True)


main()
