"""Amazon EC2, by Ray's launcher: a small head that trains nothing, spot workers, none while nothing runs."""

from __future__ import annotations

from vistudy.clusters.deploy.render import WORD, Backend, Setting, common

BACKEND = Backend(
    name="aws",
    summary="Amazon EC2, spot",
    files=("cluster.yaml", "README.md"),
    token=True,
    settings=(
        *common(store=r"s3://[\w./-]+", store_help="Ledger: s3://bucket/folder.", image=None),
        Setting(name="region", pattern=r"[a-z]{2}(-[a-z]+)+-\d", help="Region, e.g. eu-west-1.", default="us-west-2"),
        Setting(name="instance", pattern=WORD, help="Type of the workers.", default="g5.2xlarge"),
        Setting(name="head-instance", pattern=WORD, help="Type of the head.", default="m5.large"),
        Setting(name="ami", pattern=r"ami-[0-9a-f]{8,17}", help="Image with Docker and NVIDIA's driver.", default=None),
    ),
)
