#!/usr/bin/env bash
# Looks for requests that the HTTP API answers with a fault of its own, or otherwise than its document says:
# schemathesis (PyPI) against a server of this build on an empty SQLite store, and on Redis with FUZZ_BROKER=URL.
#
#   bash scripts/http-fuzz.sh [EXAMPLES]       # per route, 20 if not given: about 5 minutes
#
# Not in CI. Needs Python 3.10 or later and the package index; FUZZ_PYTHON names a Python that has schemathesis.
set -euo pipefail
cd "$(dirname "$0")/.."
examples=${1:-20}
program=${CARGO_TARGET_DIR:-target}/debug/celeriac
[ -x "$program" ] || cargo build -p celeriac
program=$(realpath "$program")
folder=$(mktemp -d)
server=
cleanup() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    rm -rf "$folder"
}
trap cleanup EXIT
python=${FUZZ_PYTHON:-}
if [ -z "$python" ]; then
    python3 -m venv "$folder/venv"
    "$folder/venv/bin/pip" install -q schemathesis
    python=$folder/venv/bin/python
fi
port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
broker=${FUZZ_BROKER:-sqlite://$folder/queue.db}
cd "$folder"
token=$("$program" -b "$broker" token create fuzz --role admin)
"$program" -b "$broker" serve --bind "127.0.0.1:$port" 2>serve.log &
server=$!
for _ in $(seq 100); do
    curl -sf "http://127.0.0.1:$port/readyz" >/dev/null && break
    kill -0 "$server" || { cat serve.log; exit 1; }
    sleep 0.1
done
"$python" -m schemathesis.cli run "http://127.0.0.1:$port/api/v1/openapi.json" \
    -H "Authorization: Bearer $token" --max-examples "$examples" --request-timeout 40 \
    --checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,response_headers_conformance,ignored_auth ||
    { code=$?; tail -n 5 serve.log; exit "$code"; }
curl -sf "http://127.0.0.1:$port/livez" >/dev/null
