#!/usr/bin/env bash
# Everything that attention needs from a GPU machine, with liblathe.so built elsewhere (-DLATHE_PORTABLE=ON).
#
#   scripts/gpu_attention.sh [check] [torch] [sanitize] [bench]        all without arguments, in that order
#
#   check      correctness against fp64                    -> attention_PASSES_check.json
#   torch      the operator under torch: check_torch_operator.py
#   sanitize   compute-sanitizer's memcheck, racecheck and synccheck on tiny sizes
#   bench      Lathe and its peers, and the host's cost    -> attention_PASSES.json, host_cost.json
#
# Environment: BUILD (build-portable: holds liblathe.so), OUT_DIR (bench/results), COMMIT (for the files), PASSES
# (forward; a list with commas), PYTHON (python3, with torch; the peers on PYTHONPATH), RACECHECK_LIBRARY (a liblathe.so
# of -DCMAKE_CUDA_FLAGS=-DLATHE_RACECHECK, which racecheck needs), and the seconds that each part may take:
# CHECK_SECONDS (240), TORCH_SECONDS (60), SANITIZE_SECONDS (90, each tool), BENCH_SECONDS (480). CHECK_ARGS and
# BENCH_ARGS are handed on.
# Each part logs to OUT_DIR/NAME.log and is stopped at its limit; the exit code is 1 if any failed.
set -uo pipefail
cd "$(dirname "$0")/.."

BUILD=${BUILD:-build-portable}
OUT_DIR=${OUT_DIR:-bench/results}
COMMIT=${COMMIT:-$(git rev-parse --short HEAD 2>/dev/null || echo unknown)}
PASSES=${PASSES:-forward}
PYTHON=${PYTHON:-python3}
export LATHE_LIBRARY=${LATHE_LIBRARY:-$PWD/$BUILD/liblathe.so}
export PYTHONUNBUFFERED=1
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(nproc)}
export GOMP_SPINCOUNT=${GOMP_SPINCOUNT:-3000} # torch's threads and Lathe's take turns
[ -f "$LATHE_LIBRARY" ] || { echo "gpu_attention.sh: $LATHE_LIBRARY does not exist" >&2; exit 2; }
. scripts/gpu_part.sh

check() {
  part check "${CHECK_SECONDS:-240}" "$PYTHON" scripts/check_attention.py --passes "$PASSES" --commit "$COMMIT" \
    --budget-seconds "${CHECK_SECONDS:-240}" --out "$OUT_DIR/attention_${PASSES//,/_}_check.json" ${CHECK_ARGS:-}
}

torch() { part torch "${TORCH_SECONDS:-60}" "$PYTHON" scripts/check_torch_operator.py --device cuda; }

sanitize() {
  local sanitizer tool library seconds=${SANITIZE_SECONDS:-90}
  sanitizer=$(command -v compute-sanitizer || echo /usr/local/cuda/bin/compute-sanitizer)
  for tool in memcheck racecheck synccheck; do
    library=$LATHE_LIBRARY
    [ $tool != racecheck ] || library=${RACECHECK_LIBRARY:-$LATHE_LIBRARY}
    part "sanitize_$tool" "$seconds" env LATHE_LIBRARY="$library" "$sanitizer" --tool "$tool" --error-exitcode 9 --print-limit 20 \
      "$PYTHON" scripts/check_attention.py --sanitize --passes "$PASSES" --commit "$COMMIT" \
      --budget-seconds "$seconds" --out "$OUT_DIR/sanitize_$tool.json"
  done
}

# The program of the build, or one that is compiled here: it is C and needs the CUDA runtime alone.
host_cost() {
  local program=$BUILD/bench_host_cost cuda=${CUDA_HOME:-/usr/local/cuda}
  if [ ! -x "$program" ]; then
    program=$(mktemp)
    cc -std=c11 -O2 -Iinclude -I"$cuda/include" bench/host_cost.c -o "$program" -L"$cuda/lib64" -lcudart_static -lm \
      -ldl -lrt -lpthread || return
  fi
  "$program" "$LATHE_LIBRARY" | tee "$OUT_DIR/host_cost.json"
}

bench() {
  export -f host_cost
  export BUILD OUT_DIR
  part host_cost 30 bash -o pipefail -c host_cost
  part bench "${BENCH_SECONDS:-480}" "$PYTHON" bench/attention.py --pass "$PASSES" --commit "$COMMIT" \
    --budget-seconds "${BENCH_SECONDS:-480}" --out "$OUT_DIR/attention_${PASSES//,/_}.json" ${BENCH_ARGS:-}
}

[ $# -gt 0 ] || set -- check torch sanitize bench
for name in "$@"; do
  case $name in
    check | torch | sanitize | bench) "$name" ;;
    *)
      echo "gpu_attention.sh: unknown part $name, allowed are check, torch, sanitize and bench" >&2
      exit 2
      ;;
  esac
done
exit "$failed"
