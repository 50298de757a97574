"""What no daemon and no cluster has run is held to its schema: compose files, images, manifests, job templates."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from flows.local.deploying import IMAGE_FOLDER, RUN_SETTINGS
from tests.end_to_end.pipeline import PROJECT

INFRA = PROJECT / "infra"
VERSION = kubernetes_validate.latest_version()
BIN = Path(sys.executable).parent


@pytest.mark.parametrize("name", ["compose.yaml", "compose.gpu.yaml"])
def test_compose_files_follow_the_compose_specification(name: str) -> None:
    command = [BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", INFRA / "docker" / name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_compose_names_what_it_uses_and_holds_no_secret() -> None:
    text = (INFRA / "docker" / "compose.yaml").read_text()
    compose = yaml.safe_load(text)
    services = compose["services"]
    for name, service in services.items():
        assert set(service.get("depends_on", {})) <= set(services), name
        mounts = service.get("secrets", [])
        assert {mount["source"] if isinstance(mount, dict) else mount for mount in mounts} <= set(compose["secrets"]), (
            name
        )
        mounted = {volume.split(":")[0] for volume in service.get("volumes", [])}
        assert mounted <= set(compose["volumes"]), name
        plain = {mount for mount in mounts if isinstance(mount, str)}
        assert set(re.findall(r"/run/secrets/(\w+)", json.dumps(service))) == plain, name
    assert not re.search(r"(?i)(password|secret|key)[a-z_]*: *[^\s\[/{]+ *$", re.sub(r"_FILE:.*", "", text), re.M)
    assert RUN_SETTINGS.items() <= services["worker"]["environment"].items()


def test_secrets_are_made_once_and_only_their_owner_can_reach_them(tmp_path: Path) -> None:
    script = tmp_path / "make_secrets.sh"
    script.write_bytes((INFRA / "docker" / "make_secrets.sh").read_bytes())
    found = []
    for _ in range(2):
        subprocess.run(["bash", script], check=True)
        found.append({path.name: path.read_bytes() for path in (tmp_path / "secrets").iterdir()})
    assert found[0] == found[1]
    assert (tmp_path / "secrets").stat().st_mode & 0o077 == 0
    compose = yaml.safe_load((INFRA / "docker" / "compose.yaml").read_text())
    mounted = {Path(secret["file"]).name for secret in compose["secrets"].values()}
    (environment,) = compose["services"]["worker"]["env_file"]
    assert environment == {"path": "secrets/worker.env", "required": False}
    assert set(found[0]) == mounted | {"worker.env"}
    assert found[0]["worker.env"] == b""
    access = dict(line.split("=") for line in found[0]["s3_access.env"].decode().split())
    (identity,) = json.loads(found[0]["s3_identities.json"])["identities"]
    assert identity["credentials"] == [
        {"accessKey": access["AWS_ACCESS_KEY_ID"], "secretKey": access["AWS_SECRET_ACCESS_KEY"]}
    ]


def test_the_cache_of_gitlab_depends_on_two_files_at_most_which_are_there() -> None:
    """https://docs.gitlab.com/ci/yaml/#cachekeyfiles: with more the whole file is refused, which no schema says."""
    files = yaml.safe_load((INFRA / "ci" / "gitlab-ci.yml").read_text())[".prompts"]["cache"]["key"]["files"]
    assert 1 <= len(files) <= 2
    assert [name for name in files if not (PROJECT / name).is_file()] == []


def test_the_images_pass_the_linter_and_copy_what_is_there() -> None:
    dockerfile = INFRA / "docker" / "Dockerfile"
    done = subprocess.run([BIN / "hadolint", dockerfile], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    text = dockerfile.read_text()
    assert re.findall(r"^FROM \S+ AS (\w+)$", text, re.M) == ["base", "cpu", "gpu"]
    assert f"WORKDIR {IMAGE_FOLDER}" in text


@pytest.mark.parametrize("path", sorted((INFRA / "kubernetes").glob("*.yaml")), ids=lambda path: path.name)
def test_manifests_follow_the_schema_of_their_kind(path: Path) -> None:
    for manifest in yaml.safe_load_all(path.read_text()):
        if manifest["kind"] != "Kustomization":
            kubernetes_validate.validate(manifest, VERSION, strict=True)


def test_manifests_and_templates_name_the_same_things() -> None:
    listed = yaml.safe_load((INFRA / "kubernetes" / "kustomization.yaml").read_text())["resources"]
    assert set(listed) == {path.name for path in (INFRA / "kubernetes").glob("*.yaml")} - {"kustomization.yaml"}
    manifests = [m for name in listed for m in yaml.safe_load_all((INFRA / "kubernetes" / name).read_text())]
    named = {(m["kind"], m["metadata"]["name"]) for m in manifests}
    variables = template("kubernetes")["variables"]["properties"]
    assert ("ServiceAccount", variables["service_account_name"]["default"]) in named
    assert ("Namespace", variables["namespace"]["default"]) in named
    assert ("Service", "prefect-server") in named
    assert variables["env"]["default"]["PREFECT_API_URL"] == "http://prefect-server.cures.svc:4200/api"


@pytest.mark.parametrize("kind", ["process", "docker", "kubernetes"])
def test_every_template_sends_heartbeats_and_waits_for_its_server(kind: str) -> None:
    env = template(kind)["variables"]["properties"]["env"]["default"]
    assert RUN_SETTINGS.items() <= env.items()


def test_servers_of_compose_and_kubernetes_have_a_login() -> None:
    services = yaml.safe_load((INFRA / "docker" / "compose.yaml").read_text())["services"]
    login = 'PREFECT_{}API_AUTH_STRING="$$(cat /run/secrets/prefect_login)"'
    assert login.format("SERVER_") in services["server"]["command"][-1]
    for name in ("deploy", "worker"):
        assert login.format("") in services[name]["command"][-1]
    for text, (name, pod) in (("SERVER_", pods()["server.yaml"]), ("", pods()["worker.yaml"])):
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            given = {entry["name"]: entry.get("valueFrom") for entry in container["env"]}
            assert given[f"PREFECT_{text}API_AUTH_STRING"] == {
                "secretKeyRef": {"name": "cures-login", "key": "login"}
            }, name


def test_in_the_cluster_only_who_must_reaches_a_service() -> None:
    policies = {
        p["metadata"]["name"]: p["spec"] for p in yaml.safe_load_all((INFRA / "kubernetes/network.yaml").read_text())
    }
    assert policies["nothing-comes-in"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    for name, label, port, callers in (
        ("server-from-workers-and-runs", "prefect-server", 4200, {}),
        ("database-from-server", "postgres", 5432, {"matchLabels": {"app": "prefect-server"}}),
    ):
        assert policies[name]["podSelector"] == {"matchLabels": {"app": label}}
        assert policies[name]["ingress"] == [{"from": [{"podSelector": callers}], "ports": [{"port": port}]}]
    labels = {m["spec"]["template"]["metadata"]["labels"]["app"] for m in workloads().values()}
    assert {"prefect-server", "postgres"} <= labels


def test_pods_meet_the_restricted_standard_and_have_bounds_and_probes() -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards: what it asks of pods like these."""
    namespace = yaml.safe_load((INFRA / "kubernetes" / "namespace.yaml").read_text())
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    job = template("kubernetes")["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
    for name, pod in [*pods().values(), ("job", job)]:
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["securityContext"]["runAsUser"] > 0, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod), name
        for volume in pod.get("volumes", []):
            assert set(volume) - {"name"} <= {"emptyDir", "secret"}, name
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            wanted = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
            assert container["securityContext"] == wanted, name
            assert {"cpu", "memory"} <= set(container["resources"]["limits"]), name
        if name != "job":
            assert all("livenessProbe" in container for container in pod["containers"]), name
    variables = template("kubernetes")["variables"]["properties"]
    assert all(variables[what]["default"] for what in ("cpu_limit", "memory_limit", "finished_job_ttl"))


def test_every_service_of_compose_has_a_bound_and_runs_have_that_of_kubernetes() -> None:
    services = yaml.safe_load((INFRA / "docker" / "compose.yaml").read_text())["services"]
    found = {name: re.sub(r"\$\{\w+:-(\w+)\}", r"\1", service["mem_limit"]) for name, service in services.items()}
    assert all(re.fullmatch(r"[1-9]\d*g", limit) for limit in found.values()), found
    of_a_run = template("kubernetes")["variables"]["properties"]["memory_limit"]["default"]
    assert found["worker"] == of_a_run.replace("Gi", "g")
    assert template("docker")["variables"]["properties"]["mem_limit"]["default"] == found["worker"]


def test_git_finds_what_the_image_says_it_does(tmp_path: Path) -> None:
    """The credentials of a mounted file, for the host that it names and no other."""
    text = (INFRA / "docker" / "Dockerfile").read_text()
    (helper,) = re.findall(r'credential\.helper "(.+?)"', text)
    mounted = tmp_path / "credentials"
    mounted.write_text("https://robot:token-1@git.example.org\n")
    helper = helper.replace("/etc/cures/git/credentials", str(mounted))
    for host, found in (("git.example.org", "password=token-1"), ("other.example.org", "")):
        done = subprocess.run(
            ["git", "-c", f"credential.helper={helper}", "credential", "fill"],
            input=f"protocol=https\nhost={host}\n\n",
            env={**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "", "GIT_CONFIG_GLOBAL": "/dev/null"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (found in done.stdout) if found else done.returncode != 0
    mounts = set(re.findall(r"/etc/cures/git/(\w+)", text))
    compose = yaml.safe_load((INFRA / "docker" / "compose.yaml").read_text())["services"]["worker"]["secrets"]
    assert {Path(m["target"]).name for m in compose if isinstance(m, dict)} == mounts


def workloads() -> dict[str, dict[str, Any]]:
    """Deployments and stateful sets, by the file that they are in."""
    found = {}
    for path in sorted((INFRA / "kubernetes").glob("*.yaml")):
        for manifest in yaml.safe_load_all(path.read_text()):
            if "template" in manifest.get("spec", {}):
                found[path.name] = manifest
    return found


def pods() -> dict[str, tuple[str, dict[str, Any]]]:
    return {name: (name, manifest["spec"]["template"]["spec"]) for name, manifest in workloads().items()}


def test_prefect_renders_a_job_with_gpus_for_spot_nodes(no_server: None) -> None:
    from prefect.client.schemas.objects import FlowRun
    from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration as Configuration

    values = {"gpus": 2, "node_selector": {"gpu": "h100"}, "termination_grace_s": 90, "secret_name": "keys"}
    made = asyncio.run(Configuration.from_template_and_values(template("kubernetes"), values))
    made.prepare_for_flow_run(FlowRun(id=uuid.uuid4(), name="a run", flow_id=uuid.uuid4()))
    pod = made.job_manifest["spec"]["template"]["spec"]
    for name in ("parallelism", "completions"):  # Prefect wants them here, Kubernetes knows them one level up
        pod.pop(name)
    kubernetes_validate.validate(made.job_manifest, VERSION, strict=True)
    (container,) = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 2
    assert container["envFrom"] == [{"secretRef": {"name": "keys"}}]
    assert f"{IMAGE_FOLDER}/.cures" in [mount["mountPath"] for mount in container["volumeMounts"]]
    assert pod["nodeSelector"] == {"gpu": "h100"}
    assert {"key": "spot", "operator": "Exists", "effect": "NoSchedule"} in pod["tolerations"]
    assert pod["terminationGracePeriodSeconds"] == 90


def test_prefect_renders_a_container_with_gpus(no_server: None) -> None:
    from prefect_docker.worker import DockerWorkerJobConfiguration as Configuration

    made = asyncio.run(Configuration.from_template_and_values(template("docker"), {"gpus": 2, "stop_timeout_s": 90}))
    assert made.container_create_kwargs is not None
    assert made.container_create_kwargs["device_requests"][0]["Count"] == 2
    assert made.container_create_kwargs["stop_timeout"] == 90
    assert made.volumes == [f"cures_scratch:{IMAGE_FOLDER}/.cures"]


@pytest.fixture
def no_server() -> Any:
    """Prefect's client is made for an address, which nothing here asks."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        yield


def template(kind: str) -> dict[str, Any]:
    return json.loads((INFRA / "work-pools" / f"{kind}.json").read_text())  # type: ignore[no-any-return]


def test_prefect_builds_the_databases_address_from_what_compose_and_manifest_set() -> None:
    compose = yaml.safe_load((INFRA / "docker" / "compose.yaml").read_text())["services"]["server"]["environment"]
    documents = list(yaml.safe_load_all((INFRA / "kubernetes" / "server.yaml").read_text()))
    listed = documents[1]["spec"]["template"]["spec"]["containers"][0]["env"]
    manifest = {entry["name"]: entry["value"] for entry in listed if "value" in entry}
    for found in (compose, manifest):
        env = {name: value for name, value in found.items() if "DATABASE" in name}
        code = "from prefect.settings import get_current_settings as settings\n"
        code += "print(settings().server.database.connection_url.get_secret_value())"
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **env, "PREFECT_SERVER_DATABASE_PASSWORD": "word"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == "postgresql+asyncpg://prefect:word@postgres:5432/prefect"
