#!/usr/bin/env bash
# Puts CUDA 13.0's compiler and runtime from PyPI into the Python environment FOLDER and prints the path of nvcc.
#
#   CUDACXX=$(scripts/install_nvcc.sh .venv) cmake ...
set -euo pipefail
folder=${1:?usage: install_nvcc.sh FOLDER}
[ -x "$folder/bin/python" ] || python3 -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check --requirement "$(dirname "$0")/requirements-nvcc.txt" >&2
root=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/nvidia/cu13
[ -x "$root/bin/nvcc" ] || { echo "install_nvcc.sh: the packages have no $root/bin/nvcc" >&2; exit 1; }
# What nvcc and CMake look for, and the packages name otherwise.
ln -sfn lib "$root/lib64"
ln -sfn libcudart.so.13 "$root/lib/libcudart.so"
echo "$root/bin/nvcc"
