#!/bin/sh
# Installs the Debian packages that are missing: `run` builds and runs lathe, `test` adds what the tests need,
# `ci` what continuous integration needs on top. Does nothing, and needs no root, where all are there.
set -eu

packages=""
for group in "$@"; do
  case $group in
    run) packages="$packages g++ cmake ninja-build pkg-config libfmt-dev nlohmann-json3-dev libtomlplusplus-dev
      libcli11-dev libdnnl-dev libxxhash-dev libzstd-dev libpcre2-dev gnuplot-nox fonts-dejavu-core
      bible-kjv bible-kjv-text" ;;
    test) packages="$packages libgtest-dev libbenchmark-dev python3" ;;
    ci) packages="$packages clang-format-14 python3-venv" ;;
    *) echo "usage: $0 run|test|ci..." >&2; exit 2 ;;
  esac
done

missing=""
for package in $packages; do
  case $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true) in
    installed) ;;
    *) missing="$missing $package" ;;
  esac
done
[ -n "$missing" ] || exit 0

echo "installing:$missing"
as_root=""
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || { echo "not root and no sudo: install these by hand:$missing" >&2; exit 1; }
  as_root=sudo
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# shellcheck disable=SC2086
{ $as_root apt-get update && $as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y --no-install-recommends $missing; } >"$log" 2>&1 || { tail -20 "$log" >&2; exit 1; }
