"""Folders of two hospitals, one manifest of both and one of each alone."""

import csv

import numpy as np
from PIL import Image

NAMES = ("north", "south")
# Of a job on such a folder.
SETTINGS = {
    "network__options": {"width": 2, "depth": 1},
    "data__kind": "manifest",
    "data__label_names": (),
    "federation__secure": False,
    "federation__protect": (),
    "federation__local_steps": 2,
    "federation__alone": False,
    "federation__central": False,
}


def write(root, counts=(3, 5), side=40):
    """Writes `all.csv` of both hospitals' images and `NAME.csv` of each, without a site.

    The last image of a hospital is a test patient's.
    """
    rng, rows = np.random.default_rng(0), []
    for name, count in zip(NAMES, counts, strict=True):
        (root / name).mkdir(parents=True)
        for i in range(count):
            mask = np.zeros((side, side), np.uint8)
            mask[5 : 15 + i, 5:25] = 1
            pixels = np.uint8(rng.integers(0, 100, mask.shape) + 100 * mask)
            files = {"image": f"{name}/{i}.png", "mask": f"{name}/{i}_mask.png"}
            Image.fromarray(pixels).save(root / files["image"])
            Image.fromarray(255 * mask).save(root / files["mask"])
            about = {"patient": f"{name}-{i}", "site": name}
            split = "test" if i == count - 1 else "train"
            rows.append({**files, **about, "split": split})
    _write(root / "all.csv", rows)
    for name in NAMES:
        of_site = [row for row in rows if row["site"] == name]
        _write(
            root / f"{name}.csv",
            [{key: row[key] for key in row if key != "site"} for row in of_site],
        )


def settings_of(root, manifest):
    """The settings of a job on one of the manifests."""
    return {**SETTINGS, "data__path": str(root), "data__manifest": manifest}


def _write(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
