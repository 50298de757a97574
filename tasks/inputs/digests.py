"""Everything that a run reads beside its configuration, by content: prompts, suites, flags, policy files, own code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from cures_core.config.data import PromptFile, SuiteConfig
from cures_core.config.marks import leaves
from cures_core.config.policy import PretrainedPolicy
from cures_core.config.run import RunConfig
from cures_core.errors import MissingInput
from cures_core.own_code import code_digest
from cures_core.prompts.flags import flags_digest, read_flags
from cures_core.prompts.lines import Snapshot
from tasks.inputs.pretrained import pretrained_files
from tasks.inputs.prompt_files import Inputs

POLICY = "policy.path/"
DATA, FLAGS, SOLUTIONS = "data.path", "data.flags", "policy.warm_start.path"


class Input(NamedTuple):
    """Something a run reads, as it is now."""

    name: str
    """What the configuration calls it: a file, an object, a module."""
    digest: str
    """SHA-256 of its content, hex."""


def inputs_of(cfg: RunConfig, pinned: Mapping[str, str] | None = None) -> dict[str, Input]:
    """All inputs of a run by the setting that names them; suites by their name, a policy's files one by one.

    `pinned`: digests of the content that names of prompt files stand for, as in `Inputs`. Raises `MissingInput` for
    what is not there, `ConfigError` for own code that cannot be found.
    """
    files = Inputs.of(cfg, pinned)
    found = {DATA: _prompt_file(files, cfg.data, DATA)}
    if cfg.data.flags is not None:  # what is listed, in whatever order
        found[FLAGS] = Input(cfg.data.flags, flags_digest(read_flags(Path(cfg.data.flags))))
    for suite in cfg.evaluation.suites:
        found[suite_field(suite)] = _prompt_file(files, suite, suite_field(suite))
    if isinstance(cfg.policy, PretrainedPolicy):
        of_policy = pretrained_files(cfg.policy).items()
        found |= {POLICY + name: Input(f"{cfg.policy.path}/{name}", digest) for name, digest in of_policy}
        if cfg.policy.warm_start is not None and (path := cfg.policy.warm_start.path) is not None:
            found[SOLUTIONS] = _named_file(files, path, SOLUTIONS)
    for leaf in leaves(cfg):
        if leaf.is_code:
            found[leaf.path] = Input(str(leaf.value), code_digest(str(leaf.value), leaf.path))
    return found


def suite_field(suite: SuiteConfig) -> str:
    """The setting that names a suite's file."""
    return f"evaluation.suites.{suite.name}.path"


def policy_files(digests: Mapping[str, str]) -> dict[str, str]:
    """Digests of the policy's files by name, out of those of all inputs by setting."""
    return {name.removeprefix(POLICY): digest for name, digest in digests.items() if name.startswith(POLICY)}


def _prompt_file(files: Inputs, cfg: PromptFile, field: str) -> Input:
    return _named_file(files, cfg.path, field)


def _named_file(files: Inputs, name: str, field: str) -> Input:
    path = files.local(name)
    if not path.exists():
        raise MissingInput(f"{name}: no such prompt set; set {field} to a JSONL or Parquet file")
    return Input(name, Snapshot.of(path).digest)
