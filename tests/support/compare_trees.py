#!/usr/bin/env python3
"""Compares two directory trees: names, types, modes, owners, mtimes, sizes, link targets, device numbers, extended
attributes, hard-link groups and the SHA-256 of every file. Prints each difference. Exit status: 0 equal, 1 different,
2 wrong use. Access and change times are never compared."""
import argparse
import hashlib
import os
import stat
import sys

TYPES = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink", stat.S_IFCHR: "char device",
         stat.S_IFBLK: "block device", stat.S_IFIFO: "fifo", stat.S_IFSOCK: "socket"}


def walk(root):
    """Yields (relative path, lstat) of everything, the root as "."; bytes paths, no recursion, one file system."""
    todo = [b"."]
    while todo:
        relative = todo.pop()
        full = os.path.join(root, relative)
        info = os.lstat(full)
        yield relative, info
        if stat.S_ISDIR(info.st_mode):
            for name in os.listdir(full):
                todo.append(name if relative == b"." else os.path.join(relative, name))


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def xattrs(path):
    return {name: os.getxattr(path, name, follow_symlinks=False)
            for name in os.listxattr(path, follow_symlinks=False)}


def describe(root, relative, info, options):
    full = os.path.join(root, relative)
    out = {"type": TYPES[stat.S_IFMT(info.st_mode)]}
    out["mode"] = oct(stat.S_IMODE(info.st_mode))
    out["owner"] = (info.st_uid, info.st_gid)
    if not options.ignore_mtime and not (options.ignore_root_mtime and relative == b"."):
        out["mtime"] = info.st_mtime_ns // (10**9 if options.whole_seconds else 1)
    if not options.ignore_xattrs:
        out["xattrs"] = xattrs(full)
    if stat.S_ISREG(info.st_mode):
        out["size"] = info.st_size
        out["names"] = info.st_nlink
        if not options.ignore_content:
            out["sha256"] = sha256(full)
    if stat.S_ISLNK(info.st_mode):
        out["target"] = os.readlink(full)
    if stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode):
        out["device"] = (os.major(info.st_rdev), os.minor(info.st_rdev))
    return out


def groups(entries):
    """Maps each path to the sorted tuple of paths that are the same inode."""
    by_inode = {}
    for path, info in entries.items():
        if not stat.S_ISDIR(info.st_mode):
            by_inode.setdefault((info.st_dev, info.st_ino), []).append(path)
    return {path: tuple(sorted(paths)) for paths in by_inode.values() for path in paths}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("expected")
    parser.add_argument("actual")
    parser.add_argument("--ignore-atime", action="store_true", help="nothing: access times are never compared")
    parser.add_argument("--ignore-mtime", action="store_true")
    parser.add_argument("--ignore-root-mtime", action="store_true")
    parser.add_argument("--whole-seconds", action="store_true", help="compare mtimes without their fraction")
    parser.add_argument("--ignore-xattrs", action="store_true")
    parser.add_argument("--ignore-content", action="store_true")
    parser.add_argument("--limit", type=int, default=50, help="differences to print (default 50)")
    options = parser.parse_args()
    roots = [os.fsencode(options.expected), os.fsencode(options.actual)]
    expected, actual = (dict(walk(root)) for root in roots)
    differences = []
    for path in sorted(expected.keys() - actual.keys()):
        differences.append((path, "missing"))
    for path in sorted(actual.keys() - expected.keys()):
        differences.append((path, "unexpected"))
    expected_groups, actual_groups = groups(expected), groups(actual)
    for path in sorted(expected.keys() & actual.keys()):
        try:
            want = describe(roots[0], path, expected[path], options)
            got = describe(roots[1], path, actual[path], options)
        except OSError as error:
            differences.append((path, f"cannot be read: {error}"))
            continue
        for key in sorted(want.keys() | got.keys()):
            if want.get(key) != got.get(key):
                differences.append((path, f"{key}: expected {want.get(key)!r}, got {got.get(key)!r}"))
        if expected_groups.get(path) != actual_groups.get(path):
            differences.append((path, f"same inode as: expected {expected_groups.get(path)!r}, "
                                      f"got {actual_groups.get(path)!r}"))
    for path, text in differences[:options.limit]:
        print(f"{os.fsdecode(path)!r}: {text}")
    if len(differences) > options.limit:
        print(f"and {len(differences) - options.limit} more")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
