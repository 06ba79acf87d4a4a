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
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
    have redis-server || missing+=(redis-server)
    [ "${#missing[@]}" = 0 ] && return 0
    have apt-get || { echo "please install: ${missing[*]}" >&2; return 1; }
    say "installing ${missing[*]}"
    as_root apt-get update -q &&
        as_root apt-get install -q -y --no-install-recommends "${missing[@]}"
}

# One Python environment: its name, and what is installed there. It is made again when the list or
# the Python changes; the stamp comes last, so that a half made one is not used. (`set -e` does not
# hold in a function whose failure is looked at.)
environment() {
    local folder="$venvs/$1" wanted
    shift
    wanted="$(python3 --version) $*"
    [ "$(cat "$folder/requirements.stamp" 2>/dev/null)" = "$wanted" ] && return 0
    say "making ${folder##*/}"
    rm -rf "$folder" && python3 -m venv "$folder" &&
        "$folder/bin/pip" install --quiet --disable-pip-version-check "$@" &&
        printf '%s' "$wanted" >"$folder/requirements.stamp"
}

# Real Celery, whose behaviour is the yardstick: the newest and two that are still widely used.
# Each has the kombu of its time, for that is what speaks to Redis. kombu 5.4 does not know redis-py 6.
# Libraries that people use with Celery have environments of their own; celery-batches knows no 5.7, and
# celery-once does not say that it needs six.
environments() {
    venvs="${CELERIAC_VENVS:-$PWD/target/venvs}"
    export CELERIAC_VENVS="$venvs"
    mkdir -p "$venvs" &&
        environment celery-5.7 'celery[redis]==5.7.0' 'flower==2.2.0' gevent msgpack pyyaml brotli backports.zstd ephem \
            'django==5.2.*' 'flask==3.*' &&
        environment celery-5.6 'celery[redis]==5.6.*' 'kombu<5.7' msgpack pyyaml brotli zstandard &&
        environment celery-5.5 'celery[redis]==5.5.*' 'kombu<5.6' 'redis<6' &&
        environment celery-5.4 'celery[redis]==5.4.*' 'kombu<5.5' 'redis<6' msgpack pyyaml brotli zstandard &&
        environment celery-5.3 'celery[redis]==5.3.4' 'kombu==5.3.*' 'redis<5' &&
        environment libraries-5.7 'celery[redis]==5.7.0' 'django==5.2.*' django-celery-results django-celery-beat sentry-sdk \
            opentelemetry-sdk opentelemetry-instrumentation-celery celery-singleton celery-once six 'flask==3.*' cryptography &&
        environment libraries-5.6 'celery[redis]==5.6.*' celery-batches &&
        environment apscheduler-3.10 'apscheduler==3.10.4' 'sqlalchemy<2.1' 'redis<6' setuptools &&
        environment apscheduler-3.11 'apscheduler==3.11.*' 'sqlalchemy<2.1' 'redis<6' setuptools &&
        environment wheel 'maturin==1.*'
}

# The Python half of the worker, under each Celery that it is for; two at a time. They take half a minute:
# what hangs is ended, and says where it stood.
python_tests() {
    printf '%s\n' 5.3 5.4 5.5 5.6 5.7 | xargs -P 2 -I{} bash -c '
        log="$0/python-{}.log"
        if timeout -s ABRT -k 10 300 "$0/celery-{}/bin/python" -X faulthandler -m unittest discover -v \
            -s python/tests >"$log" 2>&1; then
            echo "Celery {}: $(grep "^Ran " "$log")"
        else
            cat "$log"; echo "Celery {}: FAILED"; exit 1
        fi' "$venvs"
}

case "${1:-}" in
"" | --environments) ;;
*) echo "usage: scripts/test.sh [--environments]" >&2; exit 2 ;;
esac
# Services at home: whoever has no Redis or no network still runs everything else.
if ! install_debian || ! environments; then
    [ -n "${CI:-}" ] && exit 1
    say "going on without what could not be installed: its tests say that they are skipped"
fi
[ "${1:-}" = --environments ] && exit 0
have cargo || { echo "Rust is missing: install it with rustup, see https://rustup.rs" >&2; exit 1; }
if ! cargo nextest --version >/dev/null 2>&1; then
    say "installing cargo-nextest"
    cargo install --locked cargo-nextest
fi

profile=default
if [ -n "${CI:-}" ]; then
    profile=ci
    # What failed and what it said, in the last lines of the log; frames of the runtime drown it.
    export RUST_BACKTRACE=0
fi

say "format"
cargo fmt --all --check
say "lints"
cargo lint
say "minimal features"
cargo check --quiet -p celeriac --no-default-features --features sqlite
cargo check --quiet -p celeriac-stores --no-default-features
if [ -x "${venvs:-}/celery-5.7/bin/python" ] && have redis-server; then
    say "Python children"
    python_tests
    # Before the tests: both builds put their program into the same place.
    say "the wheel, in an environment of its own"
    timeout -s ABRT -k 10 1200 "$venvs/celery-5.7/bin/python" -X faulthandler -m unittest discover -v \
        -s python/wheel_tests
fi
say "tests"
cargo nextest run --workspace --all-features --profile "$profile"
if have redis-server; then
    say "the same on Redis"
    CELERIAC_TEST_STORE=redis cargo nextest run -p celeriac --all-features --profile "$profile" \
        -E 'binary(e2e) & test(/^(process|pool|library|workflows)::/)'
fi
say "documentation tests"
cargo test --quiet --workspace --all-features --doc
say "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --quiet --workspace --no-deps --all-features
say "all green"
