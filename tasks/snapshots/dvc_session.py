"""Several DVC commands in one process, because starting DVC takes longer than adding and pushing a posterior.

Usage: dvc_session.py add FILE --then push FILE.dvc. Stops at the first command that fails, with its exit code.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    from dvc.cli import main as dvc

    command: list[str] = []
    for word in [*arguments, "--then"]:
        if word != "--then":
            command.append(word)
            continue
        code = int(dvc(command))
        if code != 0:
            return code
        command = []
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
