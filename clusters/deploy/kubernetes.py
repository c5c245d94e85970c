"""Kubernetes with the KubeRay operator: a RayJob for one study, or a RayCluster that stays."""

from __future__ import annotations

from vistudy.clusters.deploy.render import NAME, Backend, Setting, common

BACKEND = Backend(
    name="kubernetes",
    summary="Kubernetes, by KubeRay",
    files=("rayjob.yaml", "raycluster.yaml", "README.md"),
    settings=(
        *common(
            image=None,
            store_help="Ledger: a path below /store, where the volume claim is mounted, or s3://bucket/folder.",
            store=r"/store(/[\w.-]+)*|(s3|gs|gcs|abfs|abfss)://[\w./-]+",
        ),
        Setting(name="namespace", pattern=NAME, help="Namespace.", default="default"),
        Setting(name="memory-gb", pattern=r"[1-9]\d{0,3}", help="Memory of each worker.", default="16"),
        Setting(
            name="claim",
            pattern=f"({NAME})?",
            help="PersistentVolumeClaim (ReadWriteMany) for the store; empty with an object store.",
            default="",
        ),
        Setting(name="hours", pattern=r"[1-9]\d{0,3}", help="The job is ended after so long.", default="72"),
    ),
    check=lambda values: (
        "claim: missing. A store below /store needs a PersistentVolumeClaim with access mode ReadWriteMany."
        if values["store"].startswith("/") and not values["claim"]
        else None
    ),
)
