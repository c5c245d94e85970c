"""A Slurm allocation: one job that starts Ray on its nodes, runs the study, and requeues itself at the time limit."""

from __future__ import annotations

from vistudy.clusters.deploy.render import PATH, WORD, Backend, Setting, common

BACKEND = Backend(
    name="slurm",
    summary="a Slurm allocation",
    files=("run.sbatch", "run-shared.sbatch", "driver.sh", "README.md"),
    settings=(
        *common(),
        Setting(name="partition", pattern=f"({WORD})?", help="Partition; empty: the default one.", default=""),
        Setting(name="account", pattern=f"({WORD})?", help="Account; empty: the default one.", default=""),
        Setting(
            name="time",
            pattern=r"(\d+-)?\d{1,2}:\d{2}:\d{2}",
            help="Time limit of one job, [D-]HH:MM:SS; at the limit the next job resumes.",
            default="04:00:00",
        ),
        Setting(name="memory-gb", pattern=r"[1-9]\d{0,3}", help="Memory of each node on shared nodes.", default="32"),
        Setting(
            name="venv",
            pattern=PATH,
            help="Virtual environment with vistudy on the shared file system.",
            default="/shared/vistudy-venv",
        ),
    ),
)
