#!/bin/sh
# Makes a folder that runs on another machine: the program, stripped, and the libraries it needs beside it. What belongs
# to the system (glibc) or to CUDA (driver, cuBLAS, cuDNN) stays outside. Usage: bundle.sh PROGRAM FOLDER
set -eu

program=$1
folder=$2
limit_mb=60

rm -rf "$folder"
mkdir "$folder"
strip -o "$folder/$(basename "$program")" "$program"
ldd "$program" | awk '$2 == "=>" { print $1, $3 }' | while read -r name path; do
  case $name in
    libc.so.*|libm.so.*|libdl.so.*|librt.so.*|libpthread.so.*|libresolv.so.*) continue ;;
    libcuda.so.*|libcudart.so.*|libcublas*|libcudnn*|libnccl*|libnvrtc*|libnvJitLink*) continue ;;
  esac
  [ -e "$path" ] || { echo "bundle.sh: $name: not found" >&2; exit 1; }
  strip -o "$folder/$name" "$path"
done

# Whatever is not CUDA's must be found beside the program or among glibc's libraries.
outside=$(ldd "$folder/$(basename "$program")" | awk '$2 == "=>" { print $1, $3 }' |
  grep -v -e " $(cd "$folder" && pwd)/" -e '^lib\(c\|m\|dl\|rt\|pthread\|resolv\)\.so' -e '^lib\(cu\|nccl\|nv\)' || true)
[ -z "$outside" ] || { echo "bundle.sh: found outside $folder: $outside" >&2; exit 1; }
size_mb=$(du -sm --apparent-size "$folder" | cut -f 1)
[ "$size_mb" -lt "$limit_mb" ] || { echo "bundle.sh: $folder has $size_mb MB, at most $limit_mb are meant" >&2; exit 1; }
echo "$folder: $size_mb MB, $(ls "$folder" | wc -l) files"
