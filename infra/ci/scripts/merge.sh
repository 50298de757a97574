#!/usr/bin/env bash
# After a merge: push the data, then tell the server if retraining is due. Safe to repeat: equal changes start one run.
# Wants: CURES_BASE (revision before the merge; all zeros, as at the first push of a branch: everything is new),
# CURES_CONFIG, PREFECT_API_URL, CURES_WAIT_S (0: do not wait), CURES_DATA_PATH (where workers find the set, if not at the
# profile's data.path).
set -euo pipefail
: "${CURES_BASE:?name the revision before the merge}" "${PREFECT_API_URL:?name the server}"
config=${CURES_CONFIG:-configs/quickstart.toml}
if [ -d .dvc ] && [ -n "$(dvc config core.remote 2>/dev/null || true)" ]; then dvc push; fi
cures ci announce --base "$CURES_BASE" --head HEAD --config "$config" --wait-s "${CURES_WAIT_S:-0}" \
  ${CURES_DATA_PATH:+--data-path "$CURES_DATA_PATH"} --json
