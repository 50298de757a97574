#!/usr/bin/env bash
# What a GPU machine has to show: installs, runs the tests marked gpu, prints a table of throughput. Usage: infra/gpu_smoke.sh
# Needs Linux, an NVIDIA driver and Python 3.11. MODEL: a folder or name for the benchmark; empty: a small random Llama.
set -euo pipefail
cd "$(dirname "$0")/.."
MODEL=${MODEL:-}
VENV=${VENV:-.venv-gpu}

nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv
[ -x "$VENV/bin/python" ] || python3.11 -m venv "$VENV"
"$VENV/bin/python" -m pip install -q --no-deps -r requirements/lock-gpu.txt
"$VENV/bin/python" -m pip install -q --no-deps --no-build-isolation -e .
export PATH="$PWD/$VENV/bin:$PATH"
python -c 'import torch; assert torch.cuda.is_available(), "torch sees no CUDA device"; print("torch", torch.__version__)'

python -m pytest -m gpu -v

figures=$(mktemp -d)
trap 'rm -rf "$figures"' EXIT
for engine in hf vllm vllm_server; do
    cures bench throughput --engine "$engine" --model "$MODEL" --prompts 64 --n 16 --max-new-tokens 512 --json \
        >"$figures/$engine.json"
done
python - "$figures" <<'PYTHON'
import json, pathlib, sys

print("| engine | tokens/s | model.generate, tokens/s | ratio | start |")
print("|---|---|---|---|---|")
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.json")):
    row = json.loads(path.read_text().splitlines()[-1])
    plain = max(row["generate_grouped_tokens_per_s"], row["generate_batched_tokens_per_s"])
    print(f"| {row['engine']} | {row['engine_tokens_per_s']:,.0f} | {plain:,.0f} | {row['speedup']:.2f}x | {row['start_s']:.1f} s |")
PYTHON
