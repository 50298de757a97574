"""`cures watch` and `cures report`: a run as it stands, in the terminal and in the browser."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated

import typer

from cures_core.config.storage import StoreConfig
from cures_core.errors import CuresError
from cures_core.report import ReportData, render, render_live
from flows.cli.runs import Run, StoreUrl
from flows.cli.typed import as_typed

REFRESH_S = 5
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'"
"""What the page may do: run the scripts that are in it, and ask this server again."""
_NAMES = ("127.0.0.1", "localhost")
"""By which a browser of this machine, or one at the end of a tunnel, asks for the page."""
_OVER = ("completed", "failed", "stopped", "died")


def watch(
    run: Run,
    store: StoreUrl = ".cures",
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 2.0,
) -> None:
    """Show a run until it ends: stages, the last step, scores. Ctrl-C stops looking, not the run."""
    from rich.console import Console
    from rich.live import Live

    from tasks.runs.live import live_report
    from tasks.runs.notes import find_run
    from tasks.runs.opening import started_config
    from tasks.storage import open_store
    from tasks.storage.lease import Pulse

    opened, console = open_store(StoreConfig(url=store)), Console(highlight=False)
    run = find_run(opened, run)
    shown = live_report(opened, run)
    ttl_s = started_config(opened, run).store.lease_ttl_s
    pulse = Pulse(opened, run, ttl_s)
    with suppress(KeyboardInterrupt), Live(watch_text(shown), console=console, auto_refresh=False) as view:
        while shown.status not in _OVER:
            time.sleep(every)
            shown = live_report(opened, run)
            if shown.status not in _OVER and pulse.stopped():
                silent = f"no sign of life for {ttl_s:.0f} s; go on with: cures run --resume {run}"
                shown = shown.model_copy(update={"status": "died", "trouble": silent})
            view.update(watch_text(shown), refresh=True)
    if not console.is_terminal:  # there Live ends its last line itself
        console.line()


def watch_text(data: ReportData) -> str:
    """The run in lines."""
    lines = [f"{data.run}: {data.status}" + (f" ({as_typed(data.trouble)})" if data.trouble else "")]
    lines += [f"  {f'{s.name} {s.label}'.strip()}: {s.seconds:.1f} s" for s in data.stages]
    if data.steps:
        last = data.steps[-1]
        reward = f"reward {float(last['reward_mean']):.3f}" if "reward_mean" in last else "no verdict"
        lines.append(
            f"  step {int(float(last['step']))}: {reward}, {int(float(last['rollouts_total'])):,} rollouts paid"
        )
    for scored in data.scores:
        shown = ", ".join(f"{s.suite} {s.avg.value:.3f} [{s.avg.low:.3f}, {s.avg.high:.3f}]" for s in scored.suites)
        lines.append(f"  {scored.label}: {shown}")
    return "\n".join(lines)


def report(
    run: Run,
    store: StoreUrl = ".cures",
    out: Annotated[Path | None, typer.Option(help="Write the page here.")] = None,
    serve: Annotated[
        bool,
        typer.Option(
            "--serve", help="Serve the page on this machine, made anew at each look, with curves to zoom into."
        ),
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to serve on; 0: any free one.")] = 8765,
) -> None:
    """The report of a run as it stands, finished or not."""
    from tasks.runs.live import live_report
    from tasks.runs.notes import find_run
    from tasks.storage import open_store

    opened = open_store(StoreConfig(url=store))
    run = find_run(opened, run)
    shown = live_report(opened, run)
    if out is not None or not serve:
        path = out or Path(f"{run}.html")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(render(shown), encoding="utf-8")
        print(path)
    if serve:
        with suppress(KeyboardInterrupt), page_server(lambda: live_report(opened, run), port) as server:
            print(f"http://127.0.0.1:{server.server_port}  (Ctrl-C ends it)", flush=True)
            server.serve_forever()


def page_server(current: Callable[[], ReportData], port: int) -> ThreadingHTTPServer:
    """A server for this machine alone: the report with curves of all metrics; pages of a run that goes on refresh
    themselves.

    It answers to names of this machine alone: a page of a stranger's site could else be given, by its name server, the
    address of this machine, and read what is here.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers.get("Host", "").partition(":")[0] not in _NAMES:
                self.send_error(421, f"ask for {' or '.join(_NAMES)}")
                return
            if self.path != "/":
                self.send_error(404)
                return
            try:
                shown = current()
                status, text = 200, render_live(shown, None if shown.status in _OVER else REFRESH_S)
            except CuresError as error:  # a stage is being replaced, or the store is away: the next look may succeed
                status, text = 503, f"{error}\n"
            body = text.encode()
            self.send_response(status)
            kind = "text/html" if status == 200 else "text/plain"
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("Content-Security-Policy", _POLICY)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Requests are not printed."""

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)
