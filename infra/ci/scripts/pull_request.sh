#!/usr/bin/env bash
# On a pull request: validate the prompt set, write the comment to summary.md. Exit code 3 if the set is not fit.
# Wants: CURES_BASE (revision the request goes into), CURES_CONFIG (profile). Needs a checkout with its history.
set -euo pipefail
: "${CURES_BASE:?name the revision that the request goes into}"
config=${CURES_CONFIG:-configs/quickstart.toml}
cures ci summary --base "$CURES_BASE" --head HEAD --config "$config" --out "${CURES_SUMMARY:-summary.md}"
