#!/usr/bin/env bash
# Fuzzes the parsers, one after another, and says how many inputs each was given and what was found.
#
#   bash scripts/fuzz.sh [SECONDS [TARGET...]]        # 600 seconds each, all targets, if not given
#   bash scripts/fuzz.sh --replay TARGET FILE...      # what a target says about single inputs
#
# Not in CI, which runs a part of it as a test (docs/testing.md). Needs a C++ compiler; the stable toolchain will do:
# the flags are those of cargo-fuzz without a sanitizer.
set -euo pipefail
cd "$(dirname "$0")/../fuzz"

host=$(rustc -vV | sed -n 's/^host: //p')
flags="--cfg fuzzing -Cdebug-assertions -Ccodegen-units=1 -Cpasses=sancov-module"
for flag in level=4 inline-8bit-counters pc-table trace-compares; do
    flags+=" -Cllvm-args=-sanitizer-coverage-$flag"
done
# With --target the flags are not those of build scripts.
RUSTFLAGS="$flags" cargo build --quiet --release --locked --bins --target "$host"
programs=${CARGO_TARGET_DIR:-target}/$host/release

if [ "${1:-}" = --replay ]; then
    program=$programs/$2
    shift 2
    cd ..
    [[ "$program" = /* ]] || program=fuzz/$program
    exec "$program" "$@"
fi

seconds=${1:-600}
case $seconds in *[!0-9]*) echo "usage: scripts/fuzz.sh [SECONDS [TARGET...]]" >&2; exit 2 ;; esac
shift || true
targets=("$@")
if [ "${#targets[@]}" = 0 ]; then
    for file in fuzz_targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
fi
found=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT
printf '%-12s %12s %8s  %s\n' target executions seconds findings
for target in "${targets[@]}"; do
    mkdir -p "corpus/$target" "artifacts/$target"
    result=none
    started=$SECONDS
    # An input may take 10 s and 2 GiB.
    "$programs/$target" "corpus/$target" "seeds/$target" -artifact_prefix="artifacts/$target/" \
        -max_total_time="$seconds" -max_len=4096 -timeout=10 -rss_limit_mb=2048 \
        -print_final_stats=1 >"$log" 2>&1 || result=found
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    if [ "$result" = found ]; then
        found=1
        result=$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)
        grep -aE -A2 'panicked at|ERROR: libFuzzer' "$log" | tail -n 12 >&2 || true
    fi
    printf '%-12s %12s %8s  %s\n' "$target" "${executions:-?}" $((SECONDS - started)) "${result:-see above}"
done
exit "$found"
