#!/usr/bin/env bash
# What a GPU machine has to show: installs from the lock, runs the tests marked gpu, measures. Usage: infra/gpu_smoke.sh
# Needs Linux, an NVIDIA driver and Python 3.11 to 3.13 (PYTHON). MODEL: a folder to measure with, else SmolLM2 is
# fetched; MINUTES, OUT: of the measurement (benchmarks/gpu/run.sh, which needs no installation where torch and
# transformers are).
set -euo pipefail
cd "$(dirname "$0")/.."
MODEL=${MODEL:-models/smollm2}
VENV=${VENV:-.venv-gpu}

nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv
[ -x "$VENV/bin/python" ] || "${PYTHON:-python3}" -m venv "$VENV"
requirements/install.sh "$VENV/bin/python" dev deepspeed vllm
"$VENV/bin/python" -m pip install -q --no-deps --no-build-isolation -e .
export PATH="$PWD/$VENV/bin:$PATH"
python -c 'import torch; assert torch.cuda.is_available(), "torch sees no CUDA device"; print("torch", torch.__version__)'

[ -d "$MODEL" ] || cures model fetch smollm2

python -m pytest -m gpu -v

for engine in hf vllm vllm_server; do
    cures bench throughput --engine "$engine" --model "$MODEL" --prompts 64 --n 16 --max-new-tokens 512
done

PYTHON=$PWD/$VENV/bin/python benchmarks/gpu/run.sh "${MINUTES:-10}" "${OUT:-.cures/gpu}" --model "$MODEL"
