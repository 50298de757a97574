"""Every tensor of a policy's files is one of the model's, and the other way round: nothing is left out or made up.

`transformers` fills what a file lacks with random numbers and passes over what it has too much, with a warning. What a
loaded model computes is its weights alone: dropout is off.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from cures_core.errors import ConfigError, CuresError, MissingInput, ServerUnavailable
from cures_core.failures import failure_of, machine_failure
from cures_core.names import inside
from cures_core.policy.adapters import base_name, holds_adapters, require_adapters

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_INDEX = "model.safetensors.index.json"
_TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "*.tiktoken",
    "*.bpe.model",
)
_NOISE = re.compile("drop|jitter", re.IGNORECASE)
_SHOWN = 5
_ONE_AT_A_TIME = Lock()
"""transformers replaces methods of its classes while it loads: after two loads at once no weights are tied any more, in
models made later either."""
_LEAST_USED = 0.8
"""Share of a model's embeddings that its tokenizer has tokens for: published models are padded by some 2 % at most."""


def load_weights(folder: str | Path, **options: Any) -> PreTrainedModel:
    """The causal LM of a folder, or of a hub id. `options`: of `from_pretrained`; with `device_map="meta"` only the
    heads of the files are read.

    Its dropout is 0, whatever its configuration says, in train mode too, as the field trains by reinforcement: an
    update compares the policy with itself as the engine sampled from it, without dropout, so that another mask of
    neurons would make noise of importance ratios and KL.

    Raises `MissingInput` where there is no model, `ConfigError` naming tensors that are missing, too many or of another
    shape, and files that are damaged or missing.
    """
    model, info = _loaded(folder, options)
    if faults := _faults(info):
        raise ConfigError(
            f"{folder}: weights and config.json do not belong together: {faults}. Name a folder of a causal LM that "
            "was saved whole"
        )
    _without_noise(model)
    return model


def _without_noise(model: PreTrainedModel) -> None:
    """Sets to 0 what draws random numbers in train mode: dropout, of layers too, and the jitter of experts' routers.

    Models keep the rates in `torch.nn.Dropout`, in attributes of their own modules, or look them up in the
    configuration; it is the same object for all modules.
    """
    from torch.nn import Dropout

    for module in model.modules():
        if isinstance(module, Dropout):
            module.p = 0.0
        for held in (vars(module), getattr(getattr(module, "config", None), "__dict__", {})):
            held.update({name: 0.0 for name, rate in held.items() if isinstance(rate, float) and _NOISE.search(name)})


def unaccounted(folder: Path) -> str:
    """Which tensors of a folder are missing, too many or of another shape for the model that its config.json tells of;
    empty where all are its own. Only the heads of the files are read."""
    return _faults(_loaded(folder, {"device_map": "meta"})[1])


def shapes_in(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shape by name of the tensors in a folder's safetensors files, of which only the heads are read."""
    from safetensors import safe_open

    found: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="np") as tensors:
            found |= {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    return found


def differing(found: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]]) -> str:
    """What of the tensors `found` is missing, too many or of another shape than is `wanted`; empty where nothing is."""
    both = found.keys() & wanted.keys()
    reshaped = [(name, found[name], wanted[name]) for name in both if found[name] != wanted[name]]
    return _faults(
        {
            "missing_keys": wanted.keys() - found.keys(),
            "unexpected_keys": found.keys() - wanted.keys(),
            "mismatched_keys": reshaped,
            "error_msgs": (),
        }
    )


def _loaded(folder: str | Path, options: Mapping[str, Any]) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The model, and what `transformers` says of its tensors."""
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    model: PreTrainedModel
    info: dict[str, Any]
    auto: Any = AutoModelForCausalLM
    require_there(folder)
    try:
        with _ONE_AT_A_TIME, _silent():
            model, info = auto.from_pretrained(
                folder,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are named below with the rest
                **options,
            )
    except SafetensorError as error:
        damaged = _damaged(Path(folder))
        fault = machine_failure(error, damaged) or ConfigError(f"{damaged}: damaged: {error}. Fetch it again")
        raise fault from error
    except (OSError, ValueError) as error:
        raise machine_failure(error, Path(folder)) or no_model(folder, error) from error
    return model, info


def require_whole(folder: Path, base: str | None = None) -> None:
    """Raises what loading a local policy would raise, without reading its weights. `base`: of a folder of adapters, the
    model they belong to."""
    from cures_core.policy.loading import load_tokenizer, tokenizer_place

    whole = Path(base_name(folder, base)) if holds_adapters(folder) else folder
    require_model(whole)
    model = load_weights(whole, device_map="meta")
    require_fitting(folder, load_tokenizer(tokenizer_place(folder, base)), model)
    if whole != folder:
        require_adapters(folder, model)


def has_tokenizer(folder: Path) -> bool:
    """Does a local folder hold one?"""
    return any(next(folder.glob(name), None) for name in _TOKENIZERS)


def require_tokenizer(folder: Path) -> None:
    """Raises `MissingInput` where a local folder has no tokenizer: `transformers` makes an empty one then."""
    if folder.is_dir() and not has_tokenizer(folder):
        raise MissingInput(
            f"{folder}: no tokenizer there (tokenizer.json). Save that of the model which the weights come from"
        )


def require_fitting(folder: str | Path, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
    """Raises `ConfigError` where the tokenizer has tokens that the model has no embedding of, or where the model has
    many embeddings that are of no token."""
    embeddings: Any = model.get_input_embeddings()
    rows = int(embeddings.weight.shape[0])
    tokens = max(tokenizer.get_vocab().values(), default=-1) + 1  # numbers may be left out in between
    if not _LEAST_USED * rows <= tokens <= rows:
        raise ConfigError(
            f"{folder}: the tokenizer has {tokens:,} tokens, the model embeddings of {rows:,}: they do not "
            "belong together. Save the tokenizer of this model there"
        )


def require_there(name: str | Path) -> None:
    """Raises `MissingInput` for the name of a folder of this machine that is not there. The hub, which has owner/model,
    is not to be asked for it: `./x`, `../x`, `/x`, below `models`, or below a folder that is there."""
    first, *rest = str(name).split("/")
    below = bool(rest) and (first == "models" or Path(first).is_dir())
    if (first in ("", ".", "..", "~") or below or len(rest) > 1) and not Path(name).is_dir():
        raise MissingInput(
            f"{name}: no folder of that name. Make it with `cures model fetch smollm2 --out {shlex.quote(str(name))}`, "
            "or put a policy in Hugging Face format there"
        )


def hub_away(name: str | Path, error: BaseException | None) -> ServerUnavailable | None:
    """The error where the hub did not answer, or is too busy to; None where it did answer, or is not to be asked
    (HF_HUB_OFFLINE). `error`: of huggingface_hub, which says by causes why it looked for a copy on this machine."""
    while error is not None and type(error).__name__ != "OfflineModeIsEnabled":  # a `ConnectionError` by its class
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (408, 429) or (status or 0) >= 500 or isinstance(failure_of(error), ServerUnavailable):
            reason = " ".join(str(error).split()) or type(error).__name__
            return ServerUnavailable(
                f"{name}: no such folder, and the hub does not answer ({reason[:200]}). When it answers again, run the "
                "same command again"
            )
        error = error.__cause__
    return None


def no_model(folder: str | Path, error: Exception) -> CuresError:
    """The error where neither a folder nor a hub id is a model."""
    return hub_away(folder, error) or MissingInput(
        f"{folder}: no model there, and no hub copy within reach ({str(error).splitlines()[0]}). "
        "Name a folder that holds config.json, model.safetensors and the tokenizer"
    )


def require_model(folder: Path) -> None:
    """Of a local folder: it is a model's, and its shards are in it. Raises `MissingInput` and `ConfigError`."""
    if folder.is_dir() and not (folder / "config.json").exists():
        raise MissingInput(
            f"{folder}: no config.json there. Name a folder with it, model.safetensors and the tokenizer"
        )
    if not (folder / _INDEX).exists():
        return
    try:
        named = {str(name) for name in json.loads((folder / _INDEX).read_bytes())["weight_map"].values()}
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ConfigError(f"{folder / _INDEX}: damaged: {error}. Fetch it again") from error
    if gone := sorted(name for name in named if not _shard(folder, name).is_file()):
        raise MissingInput(f"{folder}: {_listed(gone)} of {len(named)} shards missing. Fetch what {_INDEX} names")


def _shard(folder: Path, name: str) -> Path:
    """The file of a shard. Raises `ConfigError` for a name outside of the folder, or a hidden one: such files are in no
    digest of the policy."""
    path = inside(folder, name, str(folder / _INDEX))
    if any(part.startswith(".") for part in name.split("/")):
        raise ConfigError(f"{folder / _INDEX}: names the hidden file {name!r} as a shard; rename it, here and there")
    return path


@contextmanager
def _silent() -> Iterator[None]:
    """Without the bar and the table of `transformers`: what matters in them is an error here."""
    from transformers.utils import logging

    before, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bar:
            logging.enable_progress_bar()


def _damaged(folder: Path) -> Path:
    """The first file of weights that cannot be opened."""
    from safetensors import SafetensorError, safe_open

    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="np"):
                pass
        except SafetensorError:
            return path
    return folder


def _faults(info: Mapping[str, Any]) -> str:
    reshaped = [f"{name} {tuple(found)} instead of {tuple(needed)}" for name, found, needed in info["mismatched_keys"]]
    faults = {
        "the files lack": info["missing_keys"],
        "the model has no": info["unexpected_keys"],
        "of another shape:": reshaped,
        "not loaded:": info["error_msgs"],
    }
    return "; ".join(f"{what} {_listed(sorted(names))}" for what, names in faults.items() if names)


def _listed(names: Collection[str]) -> str:
    shown = list(names)[:_SHOWN]
    return ", ".join(shown) + (f" and {len(names) - len(shown)} more" if len(names) > len(shown) else "")
