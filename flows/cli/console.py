"""What a person sees while a run goes on: a live panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from tasks.progress import listening


@contextmanager
def showing_progress(*, quiet: bool = False) -> Iterator[None]:
    """Show this process's events on stderr while the block runs."""
    console = Console(file=sys.stderr, highlight=False)
    if quiet:
        yield
    elif console.is_terminal:
        view = _Panel(console)
        with view.live, listening(view):
            yield
    else:
        with listening(_Lines(console)):
            yield


def stage_line(event: Mapping[str, Any]) -> str:
    """One line about a stage that ended."""
    figures = event.get("figures", {})
    shown = ", ".join(f"{k} {_short(v)}" for k, v in figures.items() if isinstance(v, int | float) and k in _SHOWN)
    how = "cached" if event["status"] == "cached" else f"{event.get('seconds', 0):.1f} s"
    unknown = figures.get("unknown", 0) / figures["rollouts"] if figures.get("rollouts") else 0.0
    return f"{event['stage']}: {how}" + (f" ({shown})" if shown else "") + _alarm(unknown)


def waiting_line(event: Mapping[str, Any]) -> str:
    """One line about a stage that another process is doing."""
    return f"{event['stage']}: waiting for its result; {event['holder']}"


def step_line(event: Mapping[str, Any], seconds_left: float) -> str:
    """One line about a training step."""
    m = event["metrics"]
    tokens = m.get("completion_tokens_mean", 0.0) * m.get("step_rollouts", 0.0) / max(event["seconds"], 1e-9)
    reward = f"reward {m['reward_mean']:.3f}" if "reward_mean" in m else "no verdict"
    return (
        f"step {m['step']}/{event['last_step']}: {reward}, "
        f"informative groups {100 * m.get('informative_share', 0.0):.0f} %, {tokens:,.0f} tokens/s, "
        f"{_clock(seconds_left)} left{_alarm(m.get('unknown_share', 0.0))}"
    )


def _alarm(unknown_share: float) -> str:
    """A warning where more than 1 % of the completions got no verdict: verifier or gold answers need a look."""
    return f"; WARNING: {100 * unknown_share:.1f} % of the verdicts unknown" if unknown_share > ALARM_SHARE else ""


ALARM_SHARE = 0.01
_SHOWN = ("prompts", "rejected", "rollouts", "steps", "score", "loss")


class Eta:
    """Time left in the epoch, from the mean of the last steps."""

    def __init__(self) -> None:
        self._seconds: list[float] = []

    def left(self, event: Mapping[str, Any]) -> float:
        self._seconds = [*self._seconds[-19:], event["seconds"]]
        remaining = event["last_step"] - event["metrics"]["step"]
        return float(remaining * sum(self._seconds) / len(self._seconds))


class _Lines:
    """Plain lines: every stage, and a step at most every ten seconds."""

    def __init__(self, console: Console) -> None:
        self._console, self._eta, self._next = console, Eta(), 0.0

    def __call__(self, event: Mapping[str, Any]) -> None:
        if event["event"] == "stage" and event["status"] != "start":
            self._console.print(stage_line(event), markup=False, soft_wrap=True)
        elif event["event"] == "stage":
            self._console.print(f"{event['stage']} ...", markup=False, soft_wrap=True)
        elif event["event"] == "waiting":
            self._console.print("  " + waiting_line(event), markup=False, soft_wrap=True)
        elif event["event"] == "step":
            left = self._eta.left(event)
            if time.monotonic() >= self._next or event["metrics"]["step"] == event["last_step"]:
                self._next = time.monotonic() + 10
                self._console.print("  " + step_line(event, left), markup=False, soft_wrap=True)
        elif "total" in event and time.monotonic() >= self._next:
            self._next = time.monotonic() + 10
            self._console.print(f"  {event['event']} {event['done']}/{event['total']}", markup=False, soft_wrap=True)


class _Panel:
    """A table of stages that stays in place, with the current step below it."""

    def __init__(self, console: Console) -> None:
        self._eta = Eta()
        self._done: list[str] = []
        self._now = "starting"
        self.live = Live(self._render(), console=console, refresh_per_second=4, transient=False)

    def __call__(self, event: Mapping[str, Any]) -> None:
        if event["event"] == "stage" and event["status"] == "start":
            self._now = f"{event['stage']} ..."
        elif event["event"] == "stage":
            self._done.append(stage_line(event))
            self._now = ""
        elif event["event"] == "waiting":
            self._now = waiting_line(event)
        elif event["event"] == "step":
            self._now = step_line(event, self._eta.left(event))
        elif "total" in event:
            self._now = f"{event['event']} {event['done']}/{event['total']}"
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


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"
