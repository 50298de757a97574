#!/usr/bin/env python3
"""Write a file as a note of the merge request that this GitLab job is for; a later one replaces it.

Wants: GITLAB_TOKEN, a project access token with the scope `api` (GitLab gives a job's own token no right to notes), and
what GitLab sets in jobs of merge requests.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from pathlib import Path
from typing import Any

MARK = "<!-- cures ci summary -->"


def main(path: Path) -> None:
    project, request = os.environ["CI_MERGE_REQUEST_PROJECT_ID"], os.environ["CI_MERGE_REQUEST_IID"]
    notes = f"{os.environ['CI_API_V4_URL']}/projects/{project}/merge_requests/{request}/notes"
    body = {"body": f"{MARK}\n{path.read_text(encoding='utf-8')}"}
    latest = _call("GET", f"{notes}?per_page=100&sort=desc", None)
    ours = [note["id"] for note in latest if note["body"].startswith(MARK)]
    if ours:
        _call("PUT", f"{notes}/{ours[0]}", body)
    else:
        _call("POST", notes, body)


def _call(method: str, url: str, body: dict[str, str] | None) -> Any:
    headers = {"PRIVATE-TOKEN": os.environ["GITLAB_TOKEN"], "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method), timeout=30) as answer:
        return json.loads(answer.read())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
