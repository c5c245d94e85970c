"""Google Compute Engine, by Ray's launcher: a small head that trains nothing, spot workers, none while nothing runs."""

from __future__ import annotations

from vistudy.clusters.deploy.render import WORD, Backend, Setting, common

BACKEND = Backend(
    name="gcp",
    summary="Google Compute Engine, spot",
    files=("cluster.yaml", "README.md"),
    token=True,
    settings=(
        *common(store=r"(gs|gcs)://[\w./-]+", store_help="Ledger: gs://bucket/folder.", image=None),
        Setting(name="project", pattern=r"[a-z][-a-z0-9]{4,28}[a-z0-9]", help="Project id.", default=None),
        Setting(name="zone", pattern=r"[a-z]+-[a-z]+\d-[a-z]", help="Zone, e.g. europe-west4-a.", default="us-west1-b"),
        Setting(name="instance", pattern=WORD, help="Machine type of the workers.", default="n1-standard-8"),
        Setting(name="gpu-type", pattern=WORD, help="GPU type.", default="nvidia-tesla-t4"),
        Setting(name="head-instance", pattern=WORD, help="Machine type of the head.", default="n1-standard-2"),
        Setting(
            name="machine-image",
            pattern=r"projects/[\w./-]+",
            help="Image with Docker and NVIDIA's driver.",
            default="projects/deeplearning-platform-release/global/images/family/common-cu128-ubuntu-2204-nvidia-570",
        ),
    ),
)
