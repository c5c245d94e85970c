"""Download a data set on request: python -m vistudy.trainables.data.download NAME --data-root DIR.

Torchvision downloads and verifies the files. Nothing else in this package opens a connection.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from vistudy.trainables.data.data_root import DATA_ROOT_VARIABLE, DataError

DOWNLOADS = {
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "stacked_mnist": "MNIST",
    "cifar10": "CIFAR10",
    "celeba": "CelebA",
}
"""Data set -> class of torchvision that downloads its files."""


def download(name: str, root: Path) -> None:
    """Download the files of data set `name` into `root`, in the layout in which they are read.

    Raises:
        DataError: the data set cannot be downloaded, or the download failed.
    """
    if name not in DOWNLOADS:
        raise DataError(f"data {name!r} is not to be downloaded; what is: {', '.join(DOWNLOADS)}")
    from torchvision import datasets

    fetch = getattr(datasets, DOWNLOADS[name])
    try:
        root.mkdir(parents=True, exist_ok=True)
        if name == "celeba":
            fetch(str(root), split="all", download=True)
        else:
            fetch(str(root), download=True)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"{root}: data {name!r} could not be downloaded ({error}); try again, or copy it there"
        ) from error


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: 0 when the files are there, 2 when not."""
    parser = argparse.ArgumentParser(prog="python -m vistudy.trainables.data.download", description=__doc__)
    parser.add_argument("name", metavar="NAME", help=", ".join(DOWNLOADS))
    parser.add_argument("--data-root", type=Path, default=os.environ.get(DATA_ROOT_VARIABLE), metavar="DIR")
    args = parser.parse_args(argv)
    if args.data_root is None:
        parser.error(f"give --data-root DIR or set {DATA_ROOT_VARIABLE}")
    try:
        download(args.name, Path(args.data_root))
    except DataError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"data {args.name!r} is in {args.data_root}: set {DATA_ROOT_VARIABLE} or give --data-root")
    return 0


if __name__ == "__main__":
    sys.exit(main())
