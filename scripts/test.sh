#!/usr/bin/env bash
# Runs every test. On a fresh Debian machine it installs what is missing first (as root, or with
# sudo); elsewhere, missing tools are skips at home and failures when CI is set.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n== %s\n' "$*"; }
have() { command -v "$1" >/dev/null 2>&1; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; elif have sudo; then sudo "$@"; else return 1; fi; }

install_debian() {
    local missing=()
    have cc || missing+=(gcc libc6-dev)
    have python3 || missing+=(python3)
    [ "${#missing[@]}" = 0 ] && return 0
    have apt-get || { echo "please install: ${missing[*]}" >&2; return 1; }
    say "installing ${missing[*]}"
    as_root apt-get update -q
    as_root apt-get install -q -y --no-install-recommends "${missing[@]}"
}

install_debian
have cargo || { echo "Rust is missing: install it with rustup, see https://rustup.rs" >&2; exit 1; }
if ! cargo nextest --version >/dev/null 2>&1; then
    say "installing cargo-nextest"
    cargo install --locked cargo-nextest
fi

profile=default
[ -n "${CI:-}" ] && profile=ci

say "format"
cargo fmt --all --check
say "lints"
cargo lint
say "minimal features"
cargo check --quiet -p celeriac --no-default-features --features sqlite
cargo check --quiet -p celeriac-stores --no-default-features
say "tests"
cargo nextest run --workspace --all-features --profile "$profile"
say "documentation tests"
cargo test --quiet --workspace --all-features --doc
say "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --quiet --workspace --no-deps --all-features
say "all green"
