#!/bin/sh
# `evaluator run` beside other stream processors on the same job: prints one RESULT line (benchmarks/peer.py says more).
here=$(cd "$(dirname "$0")" && pwd)
exec "$here/../.venv/bin/python" "$here/peer.py"
