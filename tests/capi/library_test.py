#!/usr/bin/env python3
"""liblathe.so exports the functions of its header and nothing else, and needs no library that attention does not."""

import re
import subprocess
import sys


def main():
    library, header, *unwanted = sys.argv[1:]
    listing = subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True).stdout
    exported = {line.split()[2] for line in listing.splitlines()}
    with open(header, encoding="utf-8") as file:
        declared = set(re.findall(r"^LATHE_API .*?(\w+)\(", file.read(), re.MULTILINE))
    dynamic = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True).stdout
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic)
    offences = [f"{name} is exported and not in the header" for name in sorted(exported - declared)]
    offences += [f"{name} is in the header and not exported" for name in sorted(declared - exported)]
    offences += [f"{name} is needed" for name in needed for prefix in unwanted if name.startswith(prefix)]
    for offence in offences:
        print(offence)
    if not declared or not needed:
        print("nothing was found to check")
    return 1 if offences or not declared or not needed else 0


if __name__ == "__main__":
    sys.exit(main())
