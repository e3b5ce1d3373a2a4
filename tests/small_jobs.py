"""Jobs small enough to run in tests: all of the demo's smoke shape, so that programs are shared."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from configs import demo
from gxdistill.jobs.job import Job
from gxdistill.jobs.workdir import Workdir

ROOT = Path(__file__).parents[1]


# A private release of few statistics.
RELEASE = {
    "data__levels": "fixed",
    "privacy__mechanism": "statistics",
    "privacy__epsilon": 4.0,
    "privacy__delta": 1e-3,
    "privacy__statistics__features": "cell_moments",
    "privacy__statistics__count": 12,
    "privacy__statistics__pixels": 8,
    "privacy__statistics__steps": 0,
}


def make(workdir, log=print, **changes):
    """The demo's smoke job with changes, `distill__start_lr=0.1`."""
    config = demo.get_config("smoke")
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return Job(config, Workdir(workdir), log)


def write_cohort(folder, splits=("train", "train", "test", "test"), *, masks=True, side=64):
    """Writes an image and a mask of each label for each entry of `splits`, and their manifest.

    Positive images are coarser; the organ is their right half.
    """
    rng, rows = np.random.default_rng(0), []
    folder.mkdir(parents=True, exist_ok=True)
    mask = Image.fromarray(np.tile(np.arange(side) >= side // 2, (side, 1)))
    for i, (split, label) in enumerate((split, label) for split in splits for label in (0, 1)):
        grain = 1 + 3 * label
        pixels = rng.integers(0, 256, (side // grain, side // grain), np.uint8)
        Image.fromarray(pixels.repeat(grain, 0).repeat(grain, 1)).save(folder / f"{i}.png")
        mask.save(folder / f"{i}_mask.png")
        row = {"image": f"{i}.png", "label": label, "patient": f"p{i}", "split": split}
        rows.append(row | ({"mask": f"{i}_mask.png"} if masks else {}))
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def content(folder):
    """The bytes of every file below a folder, by its path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
