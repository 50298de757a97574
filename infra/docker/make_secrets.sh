#!/usr/bin/env bash
# Fresh secrets for compose.yaml in infra/docker/secrets, which git and docker build ignore. Existing ones stay.
set -euo pipefail
cd "$(dirname "$0")"
umask 077
mkdir -p secrets
cd secrets
fresh() { python3 -c 'import secrets; print(secrets.token_hex(20), end="")'; }
[ -e postgres_password ] || fresh > postgres_password
[ -e prefect_login ] || printf 'cures:%s' "$(fresh)" > prefect_login
touch git_credentials git_ssh_key git_known_hosts # yours to fill, where snapshots go to a git server
touch worker.env # yours to fill: NAME=VALUE lines for the environment of the worker and its runs
[ -e s3_access.env ] || printf 'AWS_ACCESS_KEY_ID=%s\nAWS_SECRET_ACCESS_KEY=%s\n' "$(fresh)" "$(fresh)" > s3_access.env
# shellcheck source=/dev/null
. ./s3_access.env
cat > s3_identities.json <<END
{"identities": [{"name": "cures", "credentials": [{"accessKey": "$AWS_ACCESS_KEY_ID", "secretKey": "$AWS_SECRET_ACCESS_KEY"}], "actions": ["Admin", "Read", "Write", "List", "Tagging"]}]}
END
chmod 644 ./*  # containers read them as another user; the folder is closed to others
