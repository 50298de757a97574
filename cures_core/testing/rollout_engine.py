"""Knows what every rollout engine must do: subclass `RolloutEngineExam` in a test module and give it your engine."""

from __future__ import annotations

import copy
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cures_core.rollout.engine import RolloutEngine
from cures_core.terms import FinishReason, Prompt, Request, Rollout

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PROBLEMS = ("1+1=", "12+34=", "7*8=", "2+3+4+5+6+7=", "90-45=", "3=")


class RolloutEngineExam:
    """The promises of `RolloutEngine`, as tests.

    A subclass (named `Test...`, so that pytest finds it) defines `policy` and `make`. The policy must be small and far
    from deterministic: random weights of a wide initialisation do, on at least 20 tokens.
    """

    logprob_tolerance: float = 1e-4
    """Largest allowed difference between a recorded log-probability and the model's own (nats)."""

    def policy(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """A `transformers` causal LM in evaluation mode and its tokenizer; the exam does not change them."""
        raise NotImplementedError

    def make(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, **options: Any) -> RolloutEngine:
        """Your engine on this policy. `options` are fields of `cures_core.config.rollout.Sampling`."""
        raise NotImplementedError

    def crash(self, engine: RolloutEngine) -> bool:
        """Kill what generates, as from outside. False: it is this process, and the job's chunks keep what is done."""
        return False

    def rollouts(self, requests: Sequence[Request], **options: Any) -> list[list[Rollout]]:
        model, tokenizer = self.policy()
        engine = self.make(model, tokenizer, **options)
        try:
            return engine.generate(requests)
        finally:
            engine.close()

    def test_answers_every_request_in_order(self) -> None:
        wanted = requests_of(n=(3, 1, 5, 2, 4, 1))
        answered = self.rollouts(wanted, max_new_tokens=8)
        assert [len(group) for group in answered] == [request.n for request in wanted]
        for request, group in zip(wanted, answered, strict=True):
            assert [(r.request_id, r.index) for r in group] == [(request.id, i) for i in range(request.n)]
            assert len({r.prompt_ids for r in group}) == 1
        assert len({group[0].prompt_ids for group in answered}) == len(wanted)

    def test_no_requests_give_no_rollouts(self) -> None:
        assert self.rollouts([], max_new_tokens=4) == []

    def test_same_call_gives_the_same_rollouts(self) -> None:
        model, tokenizer = self.policy()
        engine = self.make(model, tokenizer, max_new_tokens=12)
        first, second = engine.generate(requests_of(n=3)), engine.generate(requests_of(n=3))
        engine.close()
        assert tokens_of(first) == tokens_of(second)

    def test_tokens_do_not_depend_on_the_other_requests(self) -> None:
        wanted = requests_of(n=3)
        together = tokens_of(self.rollouts(wanted, max_new_tokens=12))
        backwards = tokens_of(self.rollouts(wanted[::-1], max_new_tokens=12))[::-1]
        alone = [tokens_of(self.rollouts([request], max_new_tokens=12))[0] for request in wanted]
        assert together == backwards == alone

    def test_more_rollouts_keep_the_first_ones(self) -> None:
        few, many = (
            self.rollouts(requests_of(n=2), max_new_tokens=12),
            self.rollouts(requests_of(n=5), max_new_tokens=12),
        )
        assert tokens_of(few) == [group[:2] for group in tokens_of(many)]

    def test_seed_prompt_and_index_each_change_the_tokens(self) -> None:
        groups = tokens_of(self.rollouts(requests_of(n=6), max_new_tokens=12))
        reseeded = tokens_of(self.rollouts(requests_of(n=6, seed=1), max_new_tokens=12))
        renamed = tokens_of(self.rollouts(requests_of(n=6, prefix="other-"), max_new_tokens=12))
        assert all(len(set(group)) > 1 for group in groups)
        assert all(a != b for a, b in zip(groups, reseeded, strict=True))
        assert all(a != b for a, b in zip(groups, renamed, strict=True))

    def test_request_id_does_not_change_the_tokens(self) -> None:
        renamed = [Request(f"again-{r.id}", r.prompt, r.n, r.seed) for r in requests_of(n=3)]
        once, again = self.rollouts(requests_of(n=3), max_new_tokens=12), self.rollouts(renamed, max_new_tokens=12)
        assert tokens_of(once) == tokens_of(again)

    def test_logprobs_are_those_of_the_policy_at_the_temperature(self) -> None:
        model, _ = self.policy()
        for temperature in (1.0, 0.7):
            for rollout in flat(self.rollouts(requests_of(n=3), max_new_tokens=12, temperature=temperature)):
                self.assert_logprobs(model, rollout, temperature)

    def test_logprobs_are_taken_before_the_top_p_cut(self) -> None:
        model, _ = self.policy()
        for rollout in flat(self.rollouts(requests_of(n=3), max_new_tokens=8, top_p=0.5)):
            self.assert_logprobs(model, rollout, 1.0)

    def test_greedy_takes_the_most_likely_token(self) -> None:
        model, _ = self.policy()
        for group in self.rollouts(requests_of(n=2), max_new_tokens=12, temperature=0):
            assert group[0].token_ids == group[1].token_ids
            ranked = reference_logprobs(model, group[0], 1.0)
            assert group[0].token_ids == tuple(ranked.argmax(axis=1).tolist())
            self.assert_logprobs(model, group[0], 1.0)

    def test_first_tokens_follow_the_softmax(self) -> None:
        model, _ = self.policy()
        for temperature in (1.0, 0.5):
            [group] = self.rollouts(requests_of(n=(3000,)), max_new_tokens=1, temperature=temperature)
            probs = np.exp(reference_logprobs(model, group[0], temperature)[0])
            counts = np.bincount([r.token_ids[0] for r in group], minlength=len(probs))
            assert chi_square_p_value(counts, probs) > 1e-3

    def test_top_p_keeps_to_the_nucleus(self) -> None:
        model, _ = self.policy()
        [group] = self.rollouts(requests_of(n=(300,)), max_new_tokens=1, top_p=0.6)
        probs = np.exp(reference_logprobs(model, group[0], 1.0)[0])
        ranked = np.argsort(-probs)
        size = int(np.searchsorted(np.cumsum(probs[ranked]), 0.6)) + 1
        drawn = {r.token_ids[0] for r in group}
        assert drawn == set(ranked[:size].tolist())
        assert size < len(probs)

    def test_temperature_changes_the_spread(self) -> None:
        spread = {}
        for temperature in (0.2, 1.0):
            [group] = self.rollouts(requests_of(n=(200,)), max_new_tokens=1, temperature=temperature)
            spread[temperature] = len({r.token_ids for r in group})
        assert spread[0.2] < spread[1.0]

    def test_completions_end_at_the_limit_or_at_an_end_token(self) -> None:
        model, tokenizer = self.policy()
        rollouts = flat(self.rollouts(requests_of(n=20), max_new_tokens=20))
        ends = end_ids(model, tokenizer)
        for rollout in rollouts:
            assert len(rollout.token_ids) == len(rollout.logprobs) <= 20
            assert not ends & set(rollout.token_ids[:-1])
            ended = rollout.token_ids[-1] in ends
            assert rollout.finish_reason is (FinishReason.STOP if ended else FinishReason.LENGTH)
            assert ended or len(rollout.token_ids) == 20
            shown = rollout.token_ids[:-1] if ended else rollout.token_ids
            assert rollout.text == tokenizer.decode(list(shown), skip_special_tokens=True)
        assert {r.finish_reason for r in rollouts} == set(FinishReason)

    def test_a_shorter_limit_truncates_the_same_completions(self) -> None:
        long, short = (flat(self.rollouts(requests_of(n=8), max_new_tokens=limit)) for limit in (16, 3))
        for whole, cut in zip(long, short, strict=True):
            assert cut.token_ids == whole.token_ids[:3]
            assert (cut.finish_reason is FinishReason.LENGTH) == (len(whole.token_ids) > 3 or is_truncated(whole))

    def test_stop_strings_end_the_same_completions_earlier(self) -> None:
        from cures_core.config.rollout import PromptFormat

        whole = flat(self.rollouts(requests_of(n=8), max_new_tokens=20))
        two, one = frequent_pieces(whole)
        fmt = PromptFormat(stop=(two, one))
        stopped = flat(self.rollouts(requests_of(n=8), max_new_tokens=20, prompt_format=fmt))
        assert any(r.text != w.text for r, w in zip(stopped, whole, strict=True))
        for rollout, original in zip(stopped, whole, strict=True):
            self.assert_stopped(rollout, original, (two, one))

    def test_a_retuned_engine_samples_as_a_new_one(self) -> None:
        model, tokenizer = self.policy()
        greedy = self.rollouts(requests_of(n=2), max_new_tokens=5, temperature=0)
        cold = self.rollouts(requests_of(n=2), max_new_tokens=9, temperature=0.3)
        engine = self.make(model, tokenizer, max_new_tokens=5, temperature=0)
        settings = engine.cfg.model_copy(update={"max_new_tokens": 9, "temperature": 0.3})
        # Stops that are tokens of their own, in between: nothing of them may stay.
        stops = settings.prompt_format.model_copy(update={"stop": tuple(tokenizer.get_added_vocab())})
        try:
            assert tokens_of(engine.generate(requests_of(n=2))) == tokens_of(greedy)
            engine.retune(settings.model_copy(update={"prompt_format": stops}))
            engine.retune(settings)
            assert tokens_of(engine.generate(requests_of(n=2))) == tokens_of(cold)
        finally:
            engine.close()

    def test_progress_counts_to_the_total(self) -> None:
        model, tokenizer = self.policy()
        engine = self.make(model, tokenizer, max_new_tokens=8)
        seen: list[tuple[int, int]] = []
        engine.generate(requests_of(n=4), progress=lambda done, total: seen.append((done, total)))
        engine.close()
        total = 4 * len(PROBLEMS)
        assert {of for _, of in seen} == {total}
        done = [count for count, _ in seen]
        assert done == sorted(set(done))
        assert done[-1] == total

    def test_an_exception_of_progress_cancels_and_leaves_the_engine_usable(self) -> None:
        model, tokenizer = self.policy()
        engine = self.make(model, tokenizer, max_new_tokens=12)

        def stop(_done: int, _total: int) -> None:
            raise KeyboardInterrupt

        try:
            whole = tokens_of(engine.generate(requests_of(n=3)))
            started = time.monotonic()
            with pytest.raises(KeyboardInterrupt):
                engine.generate(requests_of(n=3), progress=stop)
            assert time.monotonic() - started < 60
            assert tokens_of(engine.generate(requests_of(n=3))) == whole
        finally:
            engine.close()

    def test_rollouts_survive_a_crash_of_the_engine(self) -> None:
        """The crash comes when some rollouts are done: the others are as they would have been, none is made twice."""
        model, tokenizer = self.policy()
        engine = self.make(model, tokenizer, max_new_tokens=60)
        seen: list[int] = []
        crashed: list[bool] = []

        def crash(done: int, _total: int) -> None:
            seen.append(done)
            if not crashed:
                crashed.append(self.crash(engine))

        try:
            whole = tokens_of(engine.generate(requests_of(n=4)))
            assert tokens_of(engine.generate(requests_of(n=4), progress=crash)) == whole
        finally:
            engine.close()
        assert seen == sorted(set(seen))
        assert seen[-1] == 4 * len(PROBLEMS)
        if not crashed[0]:
            pytest.skip("this engine has no process of its own")

    def test_an_engine_that_rested_goes_on_with_the_same_and_with_new_weights(self) -> None:
        model, tokenizer = self.policy()
        trained = copy.deepcopy(model)
        engine = self.make(trained, tokenizer, max_new_tokens=8)
        try:
            before = engine.generate(requests_of(n=3))
            engine.sleep()
            assert tokens_of(engine.generate(requests_of(n=3))) == tokens_of(before)
            engine.sleep()
            disturb(trained)
            engine.sync(trained)
            after = engine.generate(requests_of(n=3))
        finally:
            engine.close()
        for rollout in flat(after):
            self.assert_logprobs(trained, rollout, 1.0)

    def test_sync_takes_the_new_weights(self) -> None:
        model, tokenizer = self.policy()
        trained = copy.deepcopy(model)
        engine = self.make(trained, tokenizer, max_new_tokens=8)
        before = engine.generate(requests_of(n=3))
        disturb(trained)
        engine.sync(trained)
        after = engine.generate(requests_of(n=3))
        engine.close()
        assert tokens_of(before) != tokens_of(after)
        for rollout in flat(after):
            self.assert_logprobs(trained, rollout, 1.0)

    def assert_logprobs(self, model: PreTrainedModel, rollout: Rollout, temperature: float) -> None:
        own = reference_logprobs(model, rollout, temperature)[np.arange(len(rollout.token_ids)), rollout.token_ids]
        assert np.abs(own - np.array(rollout.logprobs)).max() < self.logprob_tolerance

    def assert_stopped(self, rollout: Rollout, original: Rollout, stop: tuple[str, ...]) -> None:
        """`rollout` is `original` cut at the first stop string in its text, after the token that completed it."""
        _, tokenizer = self.policy()
        places = [at for s in stop if (at := original.text.find(s)) >= 0]
        assert rollout.token_ids == original.token_ids[: len(rollout.token_ids)]
        assert rollout.text == original.text[: min(places, default=None)]
        if not places:
            assert (rollout.token_ids, rollout.finish_reason) == (original.token_ids, original.finish_reason)
            return
        assert rollout.finish_reason is FinishReason.STOP
        whole, shorter = (
            tokenizer.decode(list(ids), skip_special_tokens=True) for ids in (rollout.token_ids, rollout.token_ids[:-1])
        )
        assert any(s in whole for s in stop)
        assert not any(s in shorter for s in stop)


def requests_of(n: int | Sequence[int], *, seed: int = 0, prefix: str = "prompt-") -> list[Request]:
    """Requests for `PROBLEMS`; a sequence `n` asks for the first len(n) of them."""
    counts = [n] * len(PROBLEMS) if isinstance(n, int) else list(n)
    chosen = zip(PROBLEMS, counts, strict=False)
    return [Request(f"request-{i}", Prompt(f"{prefix}{i}", text, "?"), k, seed) for i, (text, k) in enumerate(chosen)]


def tokens_of(groups: Sequence[Sequence[Rollout]]) -> list[list[tuple[int, ...]]]:
    return [[rollout.token_ids for rollout in group] for group in groups]


def flat(groups: Sequence[Sequence[Rollout]]) -> list[Rollout]:
    return [rollout for group in groups for rollout in group]


def is_truncated(rollout: Rollout) -> bool:
    return rollout.finish_reason is FinishReason.LENGTH


def end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    listed = model.generation_config.eos_token_id
    return {*(listed if isinstance(listed, list) else [listed]), tokenizer.eos_token_id} - {None}


def frequent_pieces(rollouts: Sequence[Rollout]) -> tuple[str, str]:
    """A pair of characters and a single other character that many, but not all, of the texts hold."""
    pairs = Counter(pair for r in rollouts for pair in {r.text[i : i + 2] for i in range(len(r.text) - 1)})
    two = max(sorted(pairs), key=lambda pair: pairs[pair])
    singles = Counter(c for r in rollouts for c in set(r.text) if c not in two)
    return two, min(sorted(singles), key=lambda c: abs(singles[c] - len(rollouts) / 3))


def reference_logprobs(model: PreTrainedModel, rollout: Rollout, temperature: float) -> NDArray[np.float32]:
    """log softmax(logits / temperature) at every token of the completion, by one plain forward pass: (len, vocab)."""
    import torch

    ids = torch.tensor([rollout.prompt_ids + rollout.token_ids], device=next(model.parameters()).device)
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0, len(rollout.prompt_ids) - 1 : -1].float()
    return np.asarray(torch.log_softmax(logits / temperature, dim=-1).cpu().numpy())


def chi_square_p_value(counts: NDArray[np.int64], probs: NDArray[np.floating]) -> float:
    """Chance of counts at least as far from `probs`; tokens expected fewer than 5 times are pooled."""
    from scipy.stats import chisquare

    expected = probs.astype(np.float64) / probs.sum(dtype=np.float64) * counts.sum()
    rare = expected < 5
    pooled_counts = np.append(counts[~rare], counts[rare].sum())
    pooled_expected = np.append(expected[~rare], expected[rare].sum())
    kept = pooled_expected > 0
    return float(chisquare(pooled_counts[kept], pooled_expected[kept]).pvalue)


def disturb(model: PreTrainedModel) -> None:
    """Change every weight in place, the same way each time."""
    import torch

    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise.to(parameter) * parameter.std().nan_to_num())
