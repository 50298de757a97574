#!/usr/bin/env bash
# What a GPU machine is asked: benchmarks/gpu/run.sh MINUTES OUT [OPTIONS of python -m benchmarks.gpu]
# Works from the source tree, without a network and without Prefect. Wheels and weights that prepare.sh has packed are
# taken from PARTS (parts may arrive one after another: a bundle is unpacked when all of its parts are there).
# OUT/results.json holds all results, always; a later call with the same OUT measures what is still missing.
set -euo pipefail
MINUTES=$1 OUT=$2
shift 2
started=$SECONDS
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python3}
PARTS=${PARTS:-benchmarks/gpu/parts}
SCRATCH=${CURES_GPU_SCRATCH:-/tmp}/cures-gpu
mkdir -p "$OUT" "$SCRATCH/site"

benchmarks/gpu/unpack.sh "$PARTS" "$SCRATCH"
# The commit that prepare.sh has noted down, where only the source tree has travelled.
if [ -z "${CURES_COMMIT:-}" ] && ! git rev-parse HEAD >/dev/null 2>&1 && [ -f "$PARTS/commit" ]; then
    CURES_COMMIT=$(cat "$PARTS/commit")
    export CURES_COMMIT
fi
export PYTHONPATH="$PWD:$SCRATCH/site${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
model=()
if [[ " $* " != *" --model "* ]]; then
    for folder in "$SCRATCH/smollm2" models/smollm2; do # as prepare.sh packs it, as `cures model fetch` puts it
        if [ -f "$folder/config.json" ]; then model=(--model "$folder") && break; fi
    done
fi
left=$("$PYTHON" -c "print($MINUTES - ($SECONDS - $started) / 60)")
exec "$PYTHON" -m benchmarks.gpu "$left" "$OUT" "${model[@]}" "$@"
