#!/usr/bin/env python3
"""Checks every #include "..." in src/ and apps/ against the order of folders in docs/architecture.md.

A folder is one library and includes only what stands below it; a subfolder also its parent's headers; no circles.
Prints one line an offence and exits 1 if there is one, or if nothing was found to check.
"""

import argparse
import pathlib
import re
import sys

FLOORS = {
    "apps": 8,
    "train": 7,
    "model": 6,
    "parallel": 5,
    "capi": 5,
    "backends": 4,
    "ops": 3,
    "comm": 3,
    "checkpoint": 2,
    "data": 2,
    "device": 2,
    "core": 1,
    "sm90": 1,
}

# Below by floor, and yet unknown to each other.
STRANGERS = {
    ("model", "checkpoint"): "train joins them",
    ("model", "data"): "train joins them",
    ("model", "backends"): "the model never knows the backend",
    ("parallel", "backends"): "a schedule never knows the backend",
    ("train", "backends"): "training never knows the backend",
}

SUFFIXES = {".h", ".hpp", ".cuh", ".cpp", ".cu", ".cc"}
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"')


def folder_of(path, root):
    """A file's folder as a tuple, below src/: ("ops", "cpu"); of an app: ("apps", "lathe")."""
    parts = path.relative_to(root).parts[:-1]
    return parts[1:] if parts[0] == "src" else parts


def reason_against(user, used):
    """Why files of the folder `user` may not include files of the folder `used`; None if they may."""
    for folder in (user, used):
        if not folder or folder[0] not in FLOORS:
            return f"the folder {'/'.join(folder) or '.'} has no floor"
    if user[: len(used)] == used:
        return None  # its own folder, or a parent
    if used[0] == "apps":
        return "an app's files are its own"
    if user[0] == "apps":
        return None
    if used[0] == "ops" and len(used) > 1 and user != ("backends",):
        return "only backends joins ops and their implementations"
    if (user[0], used[0]) in STRANGERS:
        return STRANGERS[user[0], used[0]]
    if FLOORS[user[0]] <= FLOORS[used[0]]:
        return f"floor {FLOORS[user[0]]} includes only what stands below it, not floor {FLOORS[used[0]]}"
    return None


def resolve(name, path, root):
    """The file that an include line means, or None."""
    for base in (path.parent, root / "src", root / "apps", root / "include"):
        candidate = (base / name).resolve()
        if candidate.is_file() and candidate.is_relative_to(root):
            return candidate
    return None


def read_includes(root):
    """[(file, line number, name)] of all include lines in src/ and apps/."""
    found = []
    for top in ("src", "apps"):
        for path in sorted((root / top).rglob("*")):
            if path.suffix not in SUFFIXES or not path.is_file():
                continue
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                if match := INCLUDE.match(line):
                    found.append((path, number, match[1]))
    return found


def find_circle(edges):
    """The files of one circle of includes, or None."""
    done = set()
    for start in edges:
        stack, trail = [(start, iter(edges[start]))], [start]
        while stack:
            below = next((n for n in stack[-1][1] if n not in done), None)
            if below is None:
                done.add(stack.pop()[0])
                trail.pop()
            elif below in trail:
                return trail[trail.index(below) :] + [below]
            else:
                stack.append((below, iter(edges.get(below, ()))))
                trail.append(below)
    return None


def check(root):
    """(number of include lines, offences)"""
    includes = read_includes(root)
    offences, edges = [], {}
    for path, number, name in includes:
        where = f"{path.relative_to(root)}:{number}"
        used = resolve(name, path, root)
        if used is None:
            offences.append(f'{where}: "{name}" names no file of the project')
            continue
        edges.setdefault(path, []).append(used)
        if used.is_relative_to(root / "include"):
            continue  # the public C header; anyone may read it
        if reason := reason_against(folder_of(path, root), folder_of(used, root)):
            offences.append(f'{where}: "{name}": {reason}')
    if circle := find_circle(edges):
        offences.append("circle: " + " -> ".join(str(path.relative_to(root)) for path in circle))
    return len(includes), offences


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path(__file__).parent.parent)
    count, offences = check(parser.parse_args().root.resolve())
    for offence in offences:
        print(offence)
    if count == 0:
        print("no include lines found in src/ and apps/: nothing was checked")
    elif not offences:
        print(f"{count} include lines keep the order")
    return 1 if offences or count == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
