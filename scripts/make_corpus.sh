#!/bin/sh
# Makes FOLDER/train.txt and FOLDER/valid.txt: the King James Bible (package bible-kjv) without its verse references, or
# the file that TEXT names. valid.txt is the last 5%, cut at a line. Usage: [TEXT=path] make_corpus.sh FOLDER
set -eu

die() {
  echo "make_corpus.sh: $*" >&2
  exit 2
}

[ $# -eq 1 ] || die "expected one folder, found $# arguments"
folder=$1
mkdir -p "$folder"

text=$folder/.text.tmp
trap 'rm -f "$text" "$folder/.train.tmp" "$folder/.valid.tmp"' EXIT
if [ -n "${TEXT:-}" ]; then
  [ -f "$TEXT" ] || die "TEXT=$TEXT: no such file"
  cat "$TEXT" > "$text"
else
  command -v bible > /dev/null || die "the command bible is missing: install the Debian packages bible-kjv and bible-kjv-text, or set TEXT=path"
  # Each line is one verse: "Ge1:1 In the beginning ..."
  bible -f gen1:1-rev22:21 | LC_ALL=C sed 's/^[0-9A-Za-z]*:[0-9]* //' > "$text"
fi

bytes=$(wc -c < "$text")
# The line that begins before the last 5% and ends in it is the last one of train.txt.
lines=$(LC_ALL=C awk -v limit=$((bytes - bytes / 20)) '{ if (done >= limit) exit; done += length($0) + 1; lines = NR } END { print lines + 0 }' "$text")
head -n "$lines" "$text" > "$folder/.train.tmp"
tail -n +$((lines + 1)) "$text" > "$folder/.valid.tmp"
[ -s "$folder/.train.tmp" ] && [ -s "$folder/.valid.tmp" ] ||
  die "${TEXT:-the text}: $bytes bytes in $lines lines cannot be cut at a line into 95% and 5%"
mv "$folder/.train.tmp" "$folder/train.txt"
mv "$folder/.valid.tmp" "$folder/valid.txt"
