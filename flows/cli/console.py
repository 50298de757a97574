"""What a person sees while a run goes on: a live panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.table import Table

from cures_core.countdown import clock_of
from cures_core.events import PartDone, StepDone
from tasks.progress import Event, StageEnded, StageStarted, StageWaiting, listening
from tasks.runs.figures import (
    EpochFigures,
    EvaluateFigures,
    Figures,
    PolicyFigures,
    PriorFigures,
    ReportFigures,
    ValidateFigures,
)


@contextmanager
def showing_progress(entropy_alarm: float = 0.0, *, quiet: bool = False) -> Iterator[None]:
    """Show this process's events on stderr while the block runs. `entropy_alarm`: as in the configuration of
    training."""
    console = Console(file=sys.stderr, highlight=False)
    if quiet:
        yield
    elif console.is_terminal:
        view = _Panel(console, entropy_alarm)
        with view.live, listening(view):
            yield
    else:
        with listening(_Lines(console, entropy_alarm)):
            yield


def stage_line(event: StageEnded) -> str:
    """One line about a stage that ended."""
    figures = event.record.figures
    shown = ", ".join(f"{name} {_short(value)}" for name, value in _headline(figures).items())
    how = "cached" if event.cached else f"{event.record.seconds:.1f} s"
    share = 0.0
    if isinstance(figures, PriorFigures | EvaluateFigures) and figures.rollouts:
        share = figures.unknown / figures.rollouts
    return f"{event.stage}: {how}" + (f" ({shown})" if shown else "") + _alarm(share) + _withheld(figures)


def _headline(figures: Figures) -> dict[str, float]:
    """The figures of a stage that its line shows."""
    match figures:
        case ValidateFigures():
            return {"prompts": figures.prompts, "rejected": figures.rejected}
        case PolicyFigures(loss=float(loss)):
            return {"loss": loss, "steps": figures.steps}
        case PriorFigures():
            return {"prompts": figures.prompts, "rollouts": figures.rollouts}
        case EpochFigures() | EvaluateFigures():
            return {"rollouts": figures.rollouts}
        case ReportFigures():
            return {"steps": figures.steps}
    return {}


def waiting_line(event: StageWaiting) -> str:
    """One line about a stage that another process is doing."""
    return f"{event.stage}: waiting for its result; {event.holder}"


def step_line(event: StepDone, seconds_left: float, entropy_alarm: float = 0.0) -> str:
    """One line about a training step. Below `entropy_alarm`, in nats a token, its entropy is a warning."""
    tokens = (event.figure("completion_tokens_mean") or 0.0) * (event.figure("step_rollouts") or 0.0)
    reward, entropy = event.figure("reward_mean"), event.figure("sampled_entropy")
    return (
        f"step {event.step}/{event.last_step}: {'no verdict' if reward is None else f'reward {reward:.3f}'}, "
        f"{_taught(event)}, "
        + ("" if entropy is None else f"entropy {entropy:.2f}, ")
        + f"{tokens / max(event.seconds, 1e-9):,.0f} tokens/s, {clock_of(seconds_left)} left"
        + _alarm(event.figure("unknown_share") or 0.0)
        + _no_entropy(entropy, entropy_alarm)
    )


def _taught(event: StepDone) -> str:
    """The share of the prompts that moved the policy. With screening most are right at once and are held as they are;
    in which right and wrong meet is told in brackets."""
    taught, mixed = event.figure("taught_share"), event.figure("informative_share") or 0.0
    if taught is None:
        return f"{100 * mixed:.0f} % of the prompts right and wrong"
    return f"{100 * taught:.0f} % of the prompts taught ({100 * mixed:.0f} % right and wrong)"


def _no_entropy(entropy: float | None, alarm: float) -> str:
    """A warning where the policy has hardly a choice left. No figure (no tokens) is no news."""
    if entropy is None or entropy >= alarm:
        return ""
    return f"; WARNING: entropy below {alarm:g} nats a token, the policy tries nothing else any more"


def _alarm(unknown_share: float) -> str:
    """A warning where more than 1 % of the completions got no verdict: verifier or gold answers need a look."""
    return f"; WARNING: {100 * unknown_share:.1f} % of the verdicts unknown" if unknown_share > ALARM_SHARE else ""


def _withheld(figures: Figures) -> str:
    """A warning where the redaction failed: kept rollouts are without their texts then."""
    number = figures.kept_rollouts.get("withheld", 0) if isinstance(figures, EpochFigures) else 0
    return f"; WARNING: the redaction failed on {number:,} kept rollouts" if number else ""


ALARM_SHARE = 0.01


class Eta:
    """Time left in the epoch, from the mean of the last steps."""

    def __init__(self) -> None:
        self._seconds: list[float] = []

    def left(self, event: StepDone) -> float:
        self._seconds = [*self._seconds[-19:], event.seconds]
        return (event.last_step - event.step) * sum(self._seconds) / len(self._seconds)


class _Lines:
    """Plain lines: every stage, and a step at most every ten seconds."""

    def __init__(self, console: Console, entropy_alarm: float) -> None:
        self._console, self._eta, self._next, self._entropy_alarm = console, Eta(), 0.0, entropy_alarm

    def __call__(self, event: Event) -> None:
        match event:
            case StageEnded():
                self._print(stage_line(event))
            case StageStarted():
                self._print(f"{event.stage} ...")
            case StageWaiting():
                self._print("  " + waiting_line(event))
            case StepDone():
                left = self._eta.left(event)
                if time.monotonic() >= self._next or event.step == event.last_step:
                    self._next = time.monotonic() + 10
                    self._print("  " + step_line(event, left, self._entropy_alarm))
            case PartDone() if time.monotonic() >= self._next:
                self._next = time.monotonic() + 10
                self._print(f"  {event.part} {event.done}/{event.total}")

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, soft_wrap=True)


class _Panel:
    """A table of stages that stays in place, with the current step below it."""

    def __init__(self, console: Console, entropy_alarm: float) -> None:
        self._eta, self._entropy_alarm = Eta(), entropy_alarm
        self._done: list[str] = []
        self._now = "starting"
        self.live = Live(self._render(), console=console, refresh_per_second=4, transient=False)

    def __call__(self, event: Event) -> None:
        match event:
            case StageStarted():
                self._now = f"{event.stage} ..."
            case StageEnded():
                self._done.append(stage_line(event))
                self._now = ""
            case StageWaiting():
                self._now = waiting_line(event)
            case StepDone():
                self._now = step_line(event, self._eta.left(event), self._entropy_alarm)
            case PartDone():
                self._now = f"{event.part} {event.done}/{event.total}"
        self.live.update(self._render())

    def _render(self) -> Table:
        table = Table.grid(padding=(0, 1))
        for line in self._done:
            table.add_row("[green]done[/green]", line)
        if self._now:
            table.add_row("[yellow]now[/yellow]", self._now)
        return table


def _short(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) or float(value).is_integer() else f"{value:.3f}"
