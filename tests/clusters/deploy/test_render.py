"""Rendered files are what Ray's launcher and KubeRay accept, ask for tokens everywhere, and hold no secret."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from tests.clusters.rendered import ANSWERS, SERVER, files
from tests.study.runs import vistudy
from vistudy.clusters.base import ClusterError
from vistudy.clusters.deploy.registry import BACKENDS
from vistudy.clusters.deploy.render import TEMPLATES, checked, render

CRDS = os.environ.get("VISTUDY_KUBERAY_CRDS")
"""Folder with KubeRay's own ray.io_rayjobs.yaml and ray.io_rayclusters.yaml, 2 MB that are not in this repository."""


def load(text: str) -> Any:
    return YAML(typ="safe").load(text)


def test_every_backend_has_answers_here():
    assert set(BACKENDS) == set(ANSWERS)


@pytest.mark.parametrize("gpus", ["0", "4"])
@pytest.mark.parametrize("name", ["ssh", "aws", "gcp"])
def test_ray_accepts_its_launcher_files(name, gpus, tmp_path):
    """What `ray up` does first: fill in defaults, then hold the result against its schema."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = load(files(name, tmp_path, gpus=gpus)["cluster.yaml"])
    filled = prepare_config(config)
    validate_config(filled)
    if name != "ssh":
        types = filled["available_node_types"]
        assert types["head"]["resources"] == {"CPU": 0}
        assert types["worker"]["min_workers"] == 0
        assert types["worker"]["resources"].get("GPU", 0) == int(gpus)
        assert filled["provider"]["cache_stopped_nodes"] is False
        assert "nightly" not in str(filled)
        assert "ray-wheels" not in str(filled)
    starts = [*filled["head_start_ray_commands"], *filled["worker_start_ray_commands"]]
    assert sum("ray start" in line for line in starts) == 2
    for line in starts:
        if "ray start" in line:
            assert "RAY_AUTH_MODE=token" in line
            assert f"RAY_AUTH_TOKEN_PATH=/tmp/vistudy-{config['cluster_name']}/token" in line
            assert "--temp-dir=/tmp/vistudy-" in line
            assert "0.0.0.0" not in line


def test_ray_refuses_a_mistake_in_them(tmp_path):
    """So the test above can fail."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = load(files("aws", tmp_path)["cluster.yaml"])
    config["max_worker"] = 2
    with pytest.raises(jsonschema.ValidationError, match="max_worker"):
        validate_config(prepare_config(config))


@pytest.mark.parametrize("file", ["rayjob.yaml", "raycluster.yaml"])
def test_kubernetes_files_say_what_matters(file, tmp_path):
    resource = load(files("kubernetes", tmp_path, gpus="2", nodes="8")[file])
    spec = resource["spec"]["rayClusterSpec"] if file == "rayjob.yaml" else resource["spec"]
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["enableInTreeAutoscaling"] is True
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    (workers,) = spec["workerGroupSpecs"]
    assert (workers["minReplicas"], workers["replicas"], workers["maxReplicas"]) == (0, 0, 8)
    for group in (spec["headGroupSpec"], workers):
        pod = group["template"]["spec"]
        assert pod["terminationGracePeriodSeconds"] >= 60
        (container,) = pod["containers"]
        assert {"name": "store", "mountPath": "/store"} in container["volumeMounts"]
        assert container["securityContext"]["runAsNonRoot"] is True
    assert workers["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "2"
    if file == "rayjob.yaml":
        assert resource["spec"]["backoffLimit"] == 3
        assert resource["spec"]["shutdownAfterJobFinishes"] is True
        assert " --cluster auto --store /store " in resource["spec"]["entrypoint"]


@pytest.mark.parametrize("answers", [{}, {"gpus": "0"}, {"store": "s3://bucket/x", "claim": ""}])
@pytest.mark.parametrize(
    ("file", "crd"), [("rayjob.yaml", "ray.io_rayjobs.yaml"), ("raycluster.yaml", "ray.io_rayclusters.yaml")]
)
@pytest.mark.skipif(CRDS is None, reason="VISTUDY_KUBERAY_CRDS does not name a folder with KubeRay's CRDs")
def test_kuberay_accepts_its_files(file, crd, answers, tmp_path):
    assert CRDS is not None
    validator = jsonschema.Draft202012Validator(crd_schema(Path(CRDS) / crd))
    resource = load(files("kubernetes", tmp_path, **answers)[file])
    validator.validate(resource)
    resource["spec"]["backofLimit" if file == "rayjob.yaml" else "rayVersoin"] = 3
    with pytest.raises(jsonschema.ValidationError, match=r"backofLimit|rayVersoin"):
        validator.validate(resource)


def crd_schema(path: Path) -> dict[str, Any]:
    """The schema of version v1, in which fields that Kubernetes would drop in silence are errors."""
    definition = load(path.read_text())
    (version,) = [v for v in definition["spec"]["versions"] if v["name"] == "v1"]
    schema: dict[str, Any] = strict(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object", "required": ["name", "namespace"]}
    return schema


def strict(node: Any) -> Any:
    if isinstance(node, list):
        return [strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    found = {key: strict(value) for key, value in node.items()}
    if node.get("x-kubernetes-int-or-string"):
        found["type"] = ["integer", "string"]
        found.pop("anyOf", None)
    if isinstance(node.get("properties"), dict) and node.get("type") == "object":
        found.setdefault("additionalProperties", bool(node.get("x-kubernetes-preserve-unknown-fields", False)))
    return found


@pytest.mark.parametrize("name", list(ANSWERS))
def test_no_file_holds_a_token(name, tmp_path):
    found = files(name, tmp_path)
    token = tmp_path / "token"
    assert token.exists() == BACKENDS[name].token
    if token.exists():
        secret = token.read_text()
        assert len(secret) == 64
        assert stat.S_IMODE(token.stat().st_mode) == 0o600
        assert (tmp_path / ".gitignore").read_text() == "token\n"
        assert not any(secret in text for text in found.values())
        files(name, tmp_path)
        assert token.read_text() == secret, "a running cluster has it"


@pytest.mark.parametrize("name", list(ANSWERS))
def test_each_readme_says_what_was_tested(name, tmp_path):
    text = files(name, tmp_path)["README.md"]
    assert "Tested: " in text
    assert "Not tested: " in text
    assert "RAY_AUTH_MODE=token" in text or name == "slurm"


def test_every_template_belongs_to_a_backend():
    there = {str(path.relative_to(TEMPLATES)) for path in TEMPLATES.rglob("*.j2")}
    assert there == {f"{name}/{file}.j2" for name, backend in BACKENDS.items() for file in backend.files}


@pytest.mark.parametrize(
    ("name", "answers", "message"),
    [
        ("aws", {"nodes": "0"}, "nodes: '0' is not allowed. Worker nodes, at most"),
        ("aws", {"nodes": "many"}, "nodes: 'many'"),
        ("aws", {"gpus": "-1"}, "gpus: '-1'"),
        ("aws", {"store": "/home/me/store"}, "store: '/home/me/store' is not allowed. Ledger: s3://bucket/folder"),
        ("aws", {"image": "a b"}, "image: 'a b'"),
        ("aws", {"image": ""}, "image: ''"),
        ("aws", {"colour": "red"}, "colour: aws has no such setting; it has name, gpus"),
        ("slurm", {"store": "relative/folder"}, "store: 'relative/folder'"),
        ("slurm", {"time": "4h"}, "time: '4h'"),
        ("slurm", {"partition": "a; rm -rf /"}, "partition: 'a; rm -rf /'"),
        ("slurm", {"store": "/x\n#SBATCH --nodes=99"}, "store: "),
        ("slurm", {"tracking-uri": "sqlite:///mlflow.db"}, "tracking-uri: 'sqlite:///mlflow.db'"),
        ("slurm", {"name": "A"}, "name: 'A'"),
        ("kubernetes", {"claim": ""}, "claim: missing"),
        ("ssh", {"workers": "10.0.0.2"}, "nodes: 2, but workers names 1"),
        ("ssh", {"workers": "10.0.0.1,10.0.0.2"}, "10.0.0.1 is named twice"),
        ("gcp", {"zone": "nowhere"}, "zone: 'nowhere'"),
    ],
)
def test_what_is_refused(name, answers, message, tmp_path):
    with pytest.raises(ClusterError) as error:
        render(BACKENDS[name], SERVER | ANSWERS[name] | answers, tmp_path / "out")
    assert message in str(error.value)
    assert not (tmp_path / "out").exists()


def test_all_that_is_wrong_is_said_at_once_and_no_password(tmp_path):
    with pytest.raises(ClusterError) as error:
        checked(BACKENDS["aws"], {"tracking-uri": "http://me:secret@host", "nodes": "0"})
    assert [line.split(":")[0] for line in str(error.value).splitlines()[1:]] == [
        "store", "image", "tracking-uri", "ami",
    ]  # fmt: skip
    assert "secret" not in str(error.value)


def test_the_command_writes_and_refuses(tmp_path):
    common = ["--out", tmp_path / "new", "--tracking-uri", "http://mlflow:5000"]
    output = vistudy("cluster", "render", "slurm", *common, code=2)
    assert "store: missing. Ledger that all nodes share" in output
    output = vistudy("cluster", "render", "slurm", *common, "--store", "/s", "--nodes", "3", "--set", "time=1:00:00")
    assert (tmp_path / "new" / "run.sbatch").read_text().count("#SBATCH --nodes=3\n") == 1
    assert "run.sbatch" in output
    output = vistudy("cluster", "render", "mainframe", *common, code=2)
    assert "want one of ssh, slurm, kubernetes, aws, gcp" in output
    assert "time: Time limit of one job" in vistudy("cluster", "settings", "slurm")
