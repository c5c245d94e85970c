"""The tracking server of clusters/mlflow, started by its own script on PostgreSQL; and its compose file."""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from tests.clusters.four_nodes import free_port
from tests.clusters.postgres import PASSWORD, available, postgres
from tests.study.runs import vistudy, write

FOLDER = Path(__file__).parents[2] / "clusters" / "mlflow"
COMPOSE_SCHEMA = os.environ.get("VISTUDY_COMPOSE_SCHEMA")
"""The Compose specification's compose-spec.json; it is not in this repository."""

STUDY = {
    "study": "mirrored",
    "model": "gan",
    "data": "ring8",
    "seeds": [0],
    "budget": {"d_updates": 20, "evaluations": 10},
    "factors": {"lr": [1e-3], "ratio": ["1:2", "2:1"]},
    "fixed": {"batch_size": 16},
}


def compose() -> dict[str, Any]:
    found: dict[str, Any] = YAML(typ="safe").load((FOLDER / "compose.yaml").read_text())
    return found


def test_compose_listens_on_loopback_and_holds_no_secret():
    services = compose()["services"]
    assert services["mlflow"]["ports"] == ["${MLFLOW_BIND:-127.0.0.1}:${MLFLOW_PORT:-5000}:5000"]
    assert "ports" not in services["postgres"], "only the server talks to the database"
    for service in services.values():
        for name, value in service["environment"].items():
            if "PASSWORD" in name or "SECRET" in name:
                assert value.startswith(f"${{{name}:?")
    asked = {line.partition("=")[0] for line in (FOLDER / "env.example").read_text().splitlines() if "=" in line[:40]}
    text = (FOLDER / "compose.yaml").read_text()
    assert all(f"${{{name}" in text for name in asked if not name.startswith("#"))
    for line in (FOLDER / "env.example").read_text().splitlines():
        if "PASSWORD=" in line or "KEY=" in line:
            assert line.endswith("=")


@pytest.mark.skipif(COMPOSE_SCHEMA is None, reason="VISTUDY_COMPOSE_SCHEMA does not name compose-spec.json")
def test_compose_is_as_its_specification_wants():
    assert COMPOSE_SCHEMA is not None
    schema = json.loads(Path(COMPOSE_SCHEMA).read_text())
    validator, found = jsonschema.Draft7Validator(schema), compose()
    validator.validate(found)
    found["services"]["mlflow"]["prots"] = []
    with pytest.raises(jsonschema.ValidationError, match="prots"):
        validator.validate(found)


def test_serve_asks_for_its_settings():
    done = subprocess.run([FOLDER / "serve.sh"], capture_output=True, text=True, env={"PATH": "/bin"}, check=False)
    assert done.returncode == 2
    assert "MLFLOW_BACKEND_STORE_URI: is not set: postgresql+psycopg2://" in done.stderr


needs = pytest.mark.skipif(
    not available() or not importlib.util.find_spec("flask_wtf"), reason="needs PostgreSQL, psycopg2 and Flask-WTF"
)


@contextlib.contextmanager
def serving(tmp_path: Path, database: str) -> Iterator[str]:
    """`serve.sh` as README.md says."""
    port = free_port()
    env = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "MLFLOW_BACKEND_STORE_URI": database,
        "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "a-key-of-this-test",
        "MLFLOW_DATA": str(tmp_path / "mlflow"),
        "MLFLOW_PORT": str(port),
    }
    log = tmp_path / "server.log"
    with open(log, "wb") as out:
        server = subprocess.Popen([FOLDER / "serve.sh"], stdout=out, stderr=out, env=env, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while status(f"http://127.0.0.1:{port}/health") != 200:
            assert time.monotonic() < deadline, log.read_text()
            assert server.poll() is None, log.read_text()
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)  # the session that this test began
        server.wait()


def status(url: str, password: str | None = None) -> int:
    """HTTP status, 0 if nothing answers."""
    request = urllib.request.Request(url)
    if password is not None:
        request.add_header("Authorization", "Basic " + base64.b64encode(f"admin:{password}".encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


@needs
@pytest.mark.cluster
@pytest.mark.slow
def test_a_study_is_mirrored_to_it_and_strangers_are_not_let_in(tmp_path):
    with postgres() as server, serving(tmp_path, server.create("mlflow")) as url:
        search = f"{url}/api/2.0/mlflow/experiments/search?max_results=10"
        assert status(search) == 401
        assert status(search, "wrong") == 401
        assert status(search, PASSWORD) == 200
        file = write(tmp_path / "study.yaml", STUDY)
        run = ["run", file, "--store", tmp_path / "store", "--tracking-uri", url, "--cluster", "debug"]
        env = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": "wrong"}
        output = vistudy(*run, env=env)
        assert "2  complete" in output, "training does not need the tracker"
        assert "MLflow" in output
        assert "Traceback" not in output
        assert "wrong" not in output
        env["MLFLOW_TRACKING_PASSWORD"] = PASSWORD
        output = vistudy("sync", file, "--store", tmp_path / "store", "--tracking-uri", url, env=env)
        assert "2 runs made, 2 ended" in output
        assert PASSWORD not in output
        assert not [
            path
            for path in (tmp_path / "store").rglob("*")
            if path.is_file() and PASSWORD.encode() in path.read_bytes()
        ]
    kept = (tmp_path / "server.log").read_text()
    assert PASSWORD not in kept
