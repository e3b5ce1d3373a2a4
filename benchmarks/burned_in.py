"""In what share of public radiographs burned-in text is found, by hospital.

All 138 images of Montgomery bear "PA ERECT" in their border; of the 566 of Shenzhen some bear "pa"
or "ap", and most a single letter as side marker, which is no text.
"""

import argparse
import csv
import json
import os
from collections import defaultdict
from pathlib import Path

from benchmarks.record import ROOT, Measured, Recorder
from gxdistill.data.files import burned_in, images


def measure(folder: Path) -> dict[str, list[bool]]:
    """Says of each image of `labels.csv`, by site, whether text was found in it."""
    flags = defaultdict(list)
    with (folder / "labels.csv").open() as file:
        for row in csv.DictReader(file):
            pixels = images.read_image(folder / f"images/{row['id']}.jpg").pixels
            flags[row["site"].lower()].append(bool(burned_in.find(pixels)))
    return dict(flags)


def main() -> None:
    """Measures, prints, and with `--record` appends the figures to the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    Recorder.add_flags(parser)
    given = parser.parse_args()
    recorder = Recorder("burned_in", given)
    root = Path(os.environ.get("GXDISTILL_DATA") or ROOT / "../shared/data")
    by_site = measure(root / "cxr_tb_lung")
    for site, flags in by_site.items():
        print(json.dumps({"site": site, "images": len(flags), "with_text": sum(flags)}))
        share = Measured(f"with_text_{site}", sum(flags) / len(flags), n=len(flags))
        recorder.add("burned_in", share)


if __name__ == "__main__":
    main()
