# Sourced by the scripts that GPU machines run. Wants OUT_DIR; sets `failed` to 1 once a part fails.
mkdir -p "$OUT_DIR"
failed=0

# part NAME SECONDS COMMAND...: the command, logged; 30 seconds more than it knows of, then it is killed.
part() {
  local name=$1 seconds=$2 start=$SECONDS code
  shift 2
  printf '\n== %s (limit %d s)\n' "$name" "$seconds"
  timeout --kill-after=10 $((seconds + 30)) "$@" 2>&1 | tee "$OUT_DIR/$name.log"
  code=${PIPESTATUS[0]}
  printf '== %s: exit code %d after %d s\n' "$name" "$code" $((SECONDS - start))
  [ "$code" -eq 0 ] || failed=1
}
