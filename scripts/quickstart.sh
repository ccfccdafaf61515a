#!/bin/sh
# Trains a small DeepSeek-V2 on real text from nothing and shows what came of it. Usage: quickstart.sh path/to/lathe
# TEXT=path trains on a text of one's own instead of the King James Bible. Each call makes a new run folder.
set -eu

lathe=$1
text=${TEXT:-}
data=data/quickstart
[ -z "$text" ] || data=data/$(basename "$text")

mkdir -p runs
number=1
while [ -e "runs/quickstart-$number" ]; do number=$((number + 1)); done
run=runs/quickstart-$number

echo "== text: ${text:-the King James Bible, verse references removed}"
TEXT=$text scripts/make_corpus.sh "$data"
for part in train valid; do
  "$lathe" tokenize --tokenizer bytes --out "$data/$part" "$data/$part.txt"
done

echo "== training"
"$lathe" train --config configs/quickstart/run.toml --set "data.train=['$data/train']" \
  --set "data.validation=['$data/valid']" --set "checkpoint.directory=$run"

echo "== the last 5% of the text, in nats a byte"
"$lathe" data stats "$data/train" --against "$data/valid" | grep -E "nats|gram"
"$lathe" plot "$run" --data "$data/train" --against "$data/valid"
"$lathe" eval --checkpoint "$run" --data "$data/valid"

echo "== a sample"
"$lathe" generate --checkpoint "$run" --prompt "And it came to pass" --max-tokens 230 --temperature 0.8 --seed 7

checkpoint=$(ls -d "$run"/step-* | tail -n 1)
echo "== files"
echo "checkpoint  $checkpoint"
echo "metrics     $run/metrics.jsonl"
[ ! -e "$run/loss.png" ] || echo "loss plot   $run/loss.png"
