"""Programs that attack what runs them: each kind in several guises. None may be right, and none may leave a trace."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

KINDS = {
    "fork bomb": "import os\nwhile True: os.fork()",
    "thread bomb": "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(99,)).start()",
    "endless output": "while True: print('x' * 10_000)",
    "endless complaints": "import os\nwhile True: os.write(2, b'x' * 10_000)",
    "ten gigabytes": "held = bytearray(10 << 30)",
    "ten gigabytes, by bits": "held = []\nwhile True: held.append(bytearray(1 << 20))",
    "files in memory": "import os\nd = os.memfd_create('x')\nwhile True: os.write(d, b'x' * (1 << 20))",
    "shared memory": "import ctypes, time\nassert ctypes.CDLL(None).shmget(0, 1 << 30, 0o1666) >= 0\ntime.sleep(99)",
    "endless loop": "while True: pass",
    "one endless call": "9 ** 9 ** 9 ** 9",
    "endless sleep": "import time\ntime.sleep(99)",
    "endless recursion": "def down(): down()\nimport sys; sys.setrecursionlimit(10 ** 9); down()",
    "reads the tests in memory": "import gc\nprint([o for o in gc.get_objects() if isinstance(o, (str, dict, list))])",
    "reads the tests in frames": (
        "import sys\nf = sys._getframe()\nwhile f: print(f.f_locals, f.f_globals); f = f.f_back"
    ),
    "reads its parent's memory": "import os\nprint(open(f'/proc/{os.getppid()}/mem', 'rb').read(99))",
    "reads all descriptors": "import os\nfor d in range(3, 99): print(os.read(d, 1 << 16))",
    "reads the file system": "import os\nprint(os.listdir('/'), open('{canary}.tests').read())",
    "reads secrets": "import os\nprint(dict(os.environ), open(f'/proc/{os.getppid()}/environ').read())",
    "writes outside": "open('{canary}', 'w').write('here')",
    "writes outside, by link": "import os\nos.symlink('/etc', '{canary}')",
    "makes a folder": "import os\nos.mkdir('{canary}')",
    "changes rights of a file": "import os\nos.chmod('{canary}.tests', 0o777)\nos.utime('{canary}.tests', (0, 0))",
    "deletes a file": "import os\nos.unlink('{canary}.tests')",
    "signals its parent": "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)",
    "signals everyone": "import os, signal\nos.kill(-1, signal.SIGKILL)",
    "signals by a file": "import fcntl, os\nr, w = os.pipe()\nfcntl.fcntl(r, fcntl.F_SETOWN, os.getppid())",
    "stays behind": "import os\nif os.fork() == 0:\n    os.setsid()\n    open('{canary}', 'w')",
    "leaves its session": "import os\nos.setsid()",
    "lifts its limits": "import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))\nheld = bytearray(10 << 30)",
    "limits its parent": "import os, resource\nresource.prlimit(os.getppid(), resource.RLIMIT_CPU, (0, 0))",
    "calls loopback": "import socket\nsocket.create_connection(('127.0.0.1', {port}), 1).send(b'here')",
    "serves on loopback": "import socket\ns = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); s.accept()",
    "runs a command": "import os\nos.system('touch {canary}')",
    "becomes a command": "import os\nos.execv('/bin/sh', ['sh', '-c', 'touch {canary}'])",
    "traces its parent": "import ctypes, os\nassert ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0",
    "mounts": "import ctypes\nassert ctypes.CDLL(None).unshare(0x10000000) == 0",
    "exits early": "raise SystemExit(0)",
    "exits at once": "import os\nos._exit(0)",
    "crashes": "import ctypes\nctypes.string_at(0)",
    "replaces comparison": (
        "import builtins, json, os\nclass Same(str):\n    def __eq__(self, other): return True\n"
        "builtins.str = Same; json.dumps = lambda *a, **k: '{{\"value\": true}}'\nprint(Same('x'))"
    ),
    "forges a verdict": (
        'import os\nfor d in range(1, 99):\n    try: os.write(d, b\'[{{"end": "exit", "output": ""}}]\\n\')\n'
        "    except OSError: pass\nos._exit(0)"
    ),
}
"""Name -> program; {canary} is a path that must stay as it is, {port} one where nobody may call."""


def corpus(canary: str, port: int) -> Iterator[tuple[str, str]]:
    """(name, completion): every kind in every guise."""
    for name, text in KINDS.items():
        body = text.replace("{canary}", canary).replace("{port}", str(port)).replace("{{", "{").replace("}}", "}")
        for guise, program in _guises(body):
            yield f"{name}, {guise}", f"Look:\n```python\n{program}\n```"


def _guises(body: str) -> Iterator[tuple[str, str]]:
    inner = textwrap.indent(body, "    ")
    yield "plainly", f"{body}\ndef secret(x): return x"
    yield "when called", f"def secret(x):\n{inner}\n    return x\nprint(secret(input()))"
    yield (
        "in a thread",
        (
            f"import threading\ndef work():\n{inner}\nt = threading.Thread(target=work)\nt.start(); t.join()\n"
            "def secret(x): return x"
        ),
    )
    yield (
        "unashamed",
        (f"def work():\n{inner}\ntry: work()\nexcept BaseException: pass\nprint('token')\ndef secret(x): return x"),
    )
    yield "at its end", f"import atexit\ndef work():\n{inner}\natexit.register(work)\ndef secret(x): return x\nwork()"
