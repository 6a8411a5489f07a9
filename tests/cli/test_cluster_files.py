"""The files that start a cluster, checked as far as possible without one."""

from __future__ import annotations

import copy
import json
import re
import shlex
import subprocess
from functools import reduce
from importlib import resources
from operator import getitem
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from sgnray.cli import main

from .test_readme import parse

FOLDER = Path(main.__file__).parents[1] / ".github" / "cluster"
KUBERAY = {path.stem: yaml.safe_load(path.read_text()) for path in FOLDER.glob("ray[cj]*.yaml")}


def sgn_commands(path):
    """The words of each `sgn ...` in commands and comments; continued lines are joined."""
    text = path.read_text()
    if path.name == "rayjob.yaml":
        yield shlex.split(KUBERAY["rayjob"]["spec"]["entrypoint"])[1:]
    for line in re.sub(r"\\\n[# ]*", "", text).splitlines():
        found = re.search(r"(?:^[# ]*|-- )(sgn \w.*)$", line)
        if found and path.name != "rayjob.yaml":
            yield shlex.split(found[1])[1:]


@pytest.mark.parametrize("name", ["ray-cluster.yaml", "raycluster.yaml", "rayjob.yaml", "slurm.sh"])
def test_the_sgn_command_of_each_file_parses(name):
    (words,) = sgn_commands(FOLDER / name)
    assert words[0] == "train"
    parse(words)


def test_the_ssh_cluster_follows_rays_schema():
    schema = json.loads((resources.files("ray.autoscaler") / "ray-schema.json").read_text())
    described = yaml.safe_load((FOLDER / "ray-cluster.yaml").read_text())
    jsonschema.validate(described, schema)
    starts = [described[f"{kind}_start_ray_commands"][-1] for kind in ("head", "worker")]
    assert ["ray start --head" in start for start in starts] == [True, False]
    assert [each for each in described["rsync_exclude"] if not each.startswith("/")] == []


def test_the_ssh_cluster_starts_ray_from_its_own_environment(tmp_path):
    home, system = tmp_path / "home", tmp_path / "bin"
    home.mkdir()
    system.mkdir()
    (home / ".bashrc").touch()
    venv = '#!/bin/sh\nmkdir -p "$3/bin"\ncp "$0" "$3/bin/pip"\ncp "$0" "$3/bin/ray"\n'
    (system / "python3").write_text(f'[ "$2" = venv ] || exit 0\n{venv}')
    (system / "python3").chmod(0o755)
    environment = {"HOME": str(home), "PATH": f"{system}:/usr/bin:/bin"}

    def run(command):
        # as ray.autoscaler._private.command_runner._with_interactive does it
        script = f"source ~/.bashrc; ({command})"
        words = ["bash", "--noprofile", "-c", "-i", script]
        return subprocess.run(
            words, env=environment, check=True, capture_output=True, text=True, timeout=300
        )

    described = yaml.safe_load((FOLDER / "ray-cluster.yaml").read_text())
    for command in described["setup_commands"]:
        run(command)
    assert run("command -v ray").stdout.strip() == str(home / "venv" / "bin" / "ray")


@pytest.mark.parametrize(
    ("gpus", "own", "workers"),
    [
        ({"SLURM_GPUS_ON_NODE": "4"}, [], "--workers 8"),
        ({}, [], "--workers 2 --cpus-per-worker 16"),
        ({}, ["--workers", "8"], "--workers 2 --workers 8"),
        ({}, ["--seeds=4"], "--workers 2 --seeds=4"),
    ],
)
def test_a_slurm_job_has_a_worker_for_each_gpu_or_node(tmp_path, gpus, own, workers):
    for name, text in {"scontrol": "echo node1", "srun": 'echo "$@"'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").touch()
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "1", **gpus}
    environment |= {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_NUM_NODES": "2"}
    done = subprocess.run(
        ["bash", FOLDER / "slurm.sh", *own, "train.seed=1"],
        env=environment | {"SLURM_CPUS_ON_NODE": "16"}, cwd=tmp_path,
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.strip().endswith(f"--case cv {workers} train.seed=1")


def test_the_nodes_of_a_slurm_job_share_a_token_of_their_own(tmp_path):
    """Ray's head requires one as soon as ~/.ray has one, and other nodes would not send it."""
    for name, text in {"scontrol": "echo node1", "srun": "env"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").touch()
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "1"}
    environment |= {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_NUM_NODES": "2"}
    tokens = set()
    for _ in range(2):
        done = subprocess.run(
            ["bash", FOLDER / "slurm.sh"], env=environment | {"SLURM_CPUS_ON_NODE": "16"},
            cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        seen = dict(line.split("=", 1) for line in done.stdout.splitlines())
        assert seen["RAY_AUTH_MODE"] == "token"
        assert re.fullmatch("[0-9a-f]{64}", seen["RAY_AUTH_TOKEN"])
        tokens.add(seen["RAY_AUTH_TOKEN"])
    assert len(tokens) == 2


def test_the_head_of_the_ssh_cluster_requires_no_token_that_the_others_would_not_send():
    described = yaml.safe_load((FOLDER / "ray-cluster.yaml").read_text())
    starts = [described[f"{kind}_start_ray_commands"][-1] for kind in ("head", "worker")]
    assert [shlex.split(each).count("RAY_AUTH_MODE=disabled") for each in starts] == [1, 0]


def cluster_of(name):
    spec = KUBERAY[name]["spec"]
    return spec.get("rayClusterSpec", spec)


def check_kuberay(described):
    """Raise ValidationError for what KubeRay would refuse or ignore."""
    schema = yaml.safe_load(Path(__file__).with_name("kuberay.yaml").read_text())
    jsonschema.validate(described, schema)
    cluster = described["spec"].get("rayClusterSpec", described["spec"])
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        pod = {"apiVersion": "v1", "kind": "PodTemplate", "template": group["template"]}
        for version in ("1.25", "1.37"):
            kubernetes_validate.validate(pod, version, strict=True)


@pytest.mark.parametrize("name", ["raycluster", "rayjob"])
def test_the_kubernetes_files_follow_the_schemas_of_kuberay_and_kubernetes(name):
    check_kuberay(KUBERAY[name])


HEAD = "spec.headGroupSpec"
GROUP = "spec.workerGroupSpecs.0"
POD = f"{GROUP}.template.spec"
MISTAKES = [  # file, path of a value, the mistake there, what the error says
    ("rayjob", "spec.shutdownAfterJobFinish", True, "shutdownAfterJobFinish"),
    ("rayjob", "spec.ttlSecondsAfterFinished", "600", "not of type 'integer'"),
    ("rayjob", "spec.submissionMode", "HTTP", "'HTTP' is not one of"),
    ("raycluster", "spec.entrypoint", "sgn train", "entrypoint"),
    ("raycluster", "apiVersion", "ray.io/v2", "'ray.io/v1' was expected"),
    ("raycluster", "spec.autoscalerOptions.upscalingMode", "Fast", "'Fast' is not one of"),
    ("raycluster", f"{HEAD}.rayStartParam", {}, "rayStartParam"),
    ("raycluster", f"{HEAD}.rayStartParams.num-cpus", 0, "not of type 'string'"),
    ("raycluster", f"{GROUP}.maxReplicas", "8", "not of type 'integer'"),
    ("raycluster", f"{POD}.restartPolicy", "No", "'No' is not one of"),
    ("raycluster", f"{POD}.restartpolicy", "Never", "restartpolicy"),
    ("raycluster", f"{POD}.containers.0", {"image": "sgnray"}, "'name' is a required property"),
    ("raycluster", f"{POD}.containers.0.volumeMount", [], "volumeMount"),
    ("raycluster", f"{POD}.containers.0.resources.limits.memory", "16 GB", "does not match"),
    ("raycluster", f"{POD}.volumes.0.emptyDir.sizelimit", "4Gi", "sizelimit"),
]


@pytest.mark.parametrize(("name", "path", "mistake", "message"), MISTAKES)
def test_a_mistake_in_a_kubernetes_file_is_found(name, path, mistake, message):
    described = copy.deepcopy(KUBERAY[name])
    *keys, last = (int(key) if key.isdigit() else key for key in path.split("."))
    reduce(getitem, keys, described)[last] = mistake
    with pytest.raises(jsonschema.ValidationError, match=message):
        check_kuberay(described)


def test_kuberay_runs_the_job_and_then_cleans_up():
    kinds = {name: (each["apiVersion"], each["kind"]) for name, each in KUBERAY.items()}
    assert kinds == {
        "rayjob": ("ray.io/v1", "RayJob"),
        "raycluster": ("ray.io/v1", "RayCluster"),
    }
    job = KUBERAY["rayjob"]["spec"]
    assert job["shutdownAfterJobFinishes"]
    assert job["ttlSecondsAfterFinished"] > 0
    claimed = cluster_of("rayjob")["headGroupSpec"]["template"]["spec"]
    (mount,) = claimed["containers"][0]["volumeMounts"]
    assert [volume["name"] for volume in claimed["volumes"]] == [mount["name"]]
    for option in ("--data", "--runs"):
        words = shlex.split(job["entrypoint"])
        assert Path(words[words.index(option) + 1]).is_relative_to(mount["mountPath"])


@pytest.mark.parametrize("name", ["raycluster", "rayjob"])
def test_workers_scale_from_zero_and_the_head_runs_none(name):
    cluster = cluster_of(name)
    assert cluster["enableInTreeAutoscaling"]
    assert cluster["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}
    has_gpu = {}
    for group in cluster["workerGroupSpecs"]:
        assert (group["replicas"], group["minReplicas"]) == (0, 0)
        assert group["maxReplicas"] > 0
        pod = group["template"]["spec"]
        assert pod["restartPolicy"] == "Never"
        (container,) = pod["containers"]
        # Ray counts the limits; with lower requests, a pod could be put on too small a node.
        assert container["resources"]["requests"] == container["resources"]["limits"]
        has_gpu[group["groupName"]] = "nvidia.com/gpu" in container["resources"]["limits"]
        mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
        assert mounted == {volume["name"] for volume in pod.get("volumes", [])}
    assert has_gpu["gpu"]
    images = re.findall(r"image: (\S+)", (FOLDER / f"{name}.yaml").read_text())
    assert set(images) == {"REGISTRY/sgnray"}


def test_the_job_asks_for_no_more_workers_than_the_cluster_allows():
    words = shlex.split(KUBERAY["rayjob"]["spec"]["entrypoint"])
    (group,) = cluster_of("rayjob")["workerGroupSpecs"]
    assert int(words[words.index("--workers") + 1]) <= group["maxReplicas"]


def test_the_image_has_all_that_is_installed():
    dockerfile = (FOLDER / "Dockerfile").read_text()
    root = FOLDER.parents[1]
    copied = [line.split()[1:-1] for line in dockerfile.splitlines() if line.startswith("COPY ")]
    paths = {path for paths in copied for path in paths}
    assert {path for path in paths if not (root / path).exists()} == set()
    project = (root / "pyproject.toml").read_text()
    needed = {"pyproject.toml", "README.md", "LICENSE", "sgnray"}
    assert paths == needed | set(re.findall(r'"sgnray\.\w+" = "(\w+)"', project))
    (version,) = re.findall(r"pip install .* ray==(\S+)", dockerfile)
    assert {cluster_of(name)["rayVersion"] for name in KUBERAY} == {version}
    (extras,) = re.findall(r"pip install .*'/src\[(.*)\]'", dockerfile)
    assert set(extras.split(",")) <= set(re.findall(r"^(\w+) = \[", project, flags=re.MULTILINE))


def test_no_ray_sends_usage_statistics():
    """KubeRay starts Ray in the image; the other files start it themselves."""
    assert "ENV RAY_USAGE_STATS_ENABLED=0\n" in (FOLDER / "Dockerfile").read_text()
    for name, num_starts in (("ray-cluster.yaml", 2), ("slurm.sh", 1)):
        text = (FOLDER / name).read_text()
        code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
        starts = re.split(r"\bray (?:start|symmetric-run)\b", code)[1:]
        assert ["--disable-usage-stats" in each for each in starts] == [True] * num_starts
