"""Seconds and peak memory of preparing 10,000 images: `python -m benchmarks.prepare_images` prints JSON.

--write keeps it as benchmarks/results/prepare-images-<date>.json.
Cases: faces (JPEGs of 178 x 218 pixels, generated in a temporary folder and read as CelebA is),
polygons (drawn), and mnist, where VISTUDY_DATA_ROOT or --data-root has its idx files (10,000 test digits are enough).

Each case runs in a process of its own, which imports all it needs before the clock starts, in a cache of its own:

    first_s    preparing: reading and hashing the files, decoding, writing, comparing checksums
    again_s    opening what is prepared, in a second process: finding the key, mapping, comparing checksums
    before_mib, peak_mib   resident memory of the first process; `mapped_mib` of it is the file itself, which the
               system can drop at any time
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vistudy.study.execution.provenance import git_state, versions

RESULTS = Path(__file__).parent / "results"
IMAGES = 10_000
REFERENCE_SHARE = 5
"""One face in so many is of the test partition."""
QUALITY = 85
"""Of the JPEGs; with the noise they are then as large as CelebA's: about 7 kB."""
DATA = {"faces": "celeba", "polygons": "polygons", "mnist": "mnist"}


def write_faces(root: Path, count: int) -> None:
    """Generate a folder in CelebA's layout: smooth colours with some noise, so that files are as large as its own."""
    from PIL import Image

    base = root / "celeba"
    folder = base / "img_align_celeba"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    lines = []
    for number in range(1, count + 1):
        small = Image.fromarray(rng.integers(256, size=(9, 7, 3), dtype=np.uint8))
        smooth = np.asarray(small.resize((178, 218), Image.Resampling.BICUBIC), dtype=np.int16)
        noisy = smooth + rng.integers(-4, 5, size=(218, 178, 1), dtype=np.int16)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{number:06}.jpg", quality=QUALITY)
        lines.append(f"{number:06}.jpg {0 if number % REFERENCE_SHARE else 2}\n")
    (base / "list_eval_partition.txt").write_text("".join(lines))


def measure(case: str, count: int) -> dict[str, Any]:
    """Prepare (or, if the cache has them, open) the images of one case in this process."""
    import filelock  # noqa: F401  (imported before the clock starts)
    import PIL.Image

    from vistudy.trainables.data import DATASETS
    from vistudy.trainables.data.images.image_dataset import ImageData
    from vistudy.trainables.data.images.polygons import Polygons

    PIL.Image.preinit()
    data = DATASETS[DATA[case]]
    if case == "polygons":
        data = Polygons(name=data.name, train=count - count // REFERENCE_SHARE, reference=count // REFERENCE_SHARE)
    assert isinstance(data, ImageData)
    before, start = _peak_mib(), time.perf_counter()
    images = data.prepared.images
    seconds = time.perf_counter() - start
    return {
        "images": len(images),
        "shape": list(images.shape[1:]),
        "seconds": round(seconds, 3),
        "before_mib": round(before, 1),
        "peak_mib": round(_peak_mib(), 1),
        "mapped_mib": round(images.nbytes / 2**20, 1),
    }


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run_case(case: str, count: int, root: Path | None) -> dict[str, Any]:
    """Both processes of one case."""
    with tempfile.TemporaryDirectory() as scratch:
        env = os.environ | {"VISTUDY_CACHE": str(Path(scratch, "cache"))}
        facts: dict[str, Any] = {"case": case}
        if case == "faces":
            write_faces(Path(scratch, "root"), count)
            sizes = [path.stat().st_size for path in Path(scratch, "root").glob("celeba/img_align_celeba/*")]
            facts["mean_file_bytes"] = round(sum(sizes) / len(sizes))
            root = Path(scratch, "root")
        if root is not None:
            env["VISTUDY_DATA_ROOT"] = str(root)
        command = [sys.executable, "-m", "benchmarks.prepare_images", "--measure", case, "--images", str(count)]
        first, again = (
            json.loads(subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout)
            for _ in range(2)
        )
    seconds = first.pop("seconds")
    facts |= first | {"first_s": seconds, "again_s": again["seconds"]}
    return facts | {"images_per_s": round(facts["images"] / seconds)}


def has_mnist(root: Path | None) -> bool:
    """Whether the idx files of MNIST, or one part of them, lie below `root`."""
    return root is not None and any(
        found for folder in ("MNIST/raw", "mnist") for found in root.glob(f"{folder}/*-images-idx3-ubyte*")
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Measure the cases and print what came out."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.prepare_images", description=(__doc__ or "").split(":")[0]
    )
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--data-root", type=Path, default=os.environ.get("VISTUDY_DATA_ROOT"), metavar="DIR")
    parser.add_argument("--write", action="store_true", help="Keep the result in benchmarks/results.")
    parser.add_argument("--measure", choices=DATA, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.measure:
        print(json.dumps(measure(args.measure, args.images)))
        return
    load, started = os.getloadavg()[0], datetime.datetime.now(datetime.UTC)
    root = Path(args.data_root).resolve() if args.data_root else None
    cases = [case for case in DATA if case != "mnist" or has_mnist(root)]
    result = {
        "date": started.isoformat(timespec="seconds"),
        "command": "python -m benchmarks.prepare_images",
        "machine": {
            "cpus": len(os.sched_getaffinity(0)),
            "load_at_start": round(load, 2),
            "system": platform.platform(),
        },
        "versions": versions(),
        "git": git_state(),
        "cases": [run_case(case, args.images, root) for case in cases],
    }
    text = json.dumps(result, indent=1) + "\n"
    if args.write:
        (RESULTS / f"prepare-images-{started.date()}.json").write_text(text, "utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
