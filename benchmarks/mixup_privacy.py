"""Dice through mixtures beside what attacks find behind them, over laws of lambda.

  python -m benchmarks.mixup_privacy --path=../shared/data/mri_hippocampus
  python -m benchmarks.mixup_privacy --path=FOLDER --laws=0.1-0.2 --seeds=1 --steps=600

Each law is trained and measured on the test patients of the config `mixup`, for each seed, beside
the same network on raw images, the upper bound.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.record import Measured, Recorder
from configs.mixup import get_config
from gxdistill.jobs.workdir import Workdir
from gxdistill.pytrees import Metadata
from gxdistill.runtime.console import log
from gxdistill.tasks.mixup import evaluating, training

LAWS = ("0.05-0.1", "0.1-0.2", "0.2-0.3", "0.3-0.5")
ATTACKS = {
    "likeness": "reid_likeness",
    "a trained network": "reid_network",
    "known references": "reid_known",
}
METRICS = (
    *("dice", "dice_raw", "dice_loss", "hd95", "hd95_raw", "dice_mixture"),
    *(f"{name}_over_chance" for name in ATTACKS.values()),
)


def case_of(law: str) -> str:
    """Names the case of a law: "0.1-0.2" is mixup_privacy_10_20."""
    return "mixup_privacy_" + "_".join(f"{100 * float(bound):.0f}" for bound in law.split("-"))


CASES = tuple(map(case_of, LAWS))


def evaluate(law: str, seed: int, given: argparse.Namespace, folder: Path) -> Metadata:
    """Trains and measures one law with one seed."""
    config = get_config("smoke" if given.smoke else "hippocampus")
    config.seed = seed
    low, high = map(float, law.split("-"))
    config.mixup.update(low=low, high=high)
    if not given.smoke:
        config.mixup.update(path=str(given.path), steps=given.steps, attack_steps=given.steps)
    workdir = Workdir(folder / f"{case_of(law)}_{seed}")
    training.train(config, workdir, log)
    return evaluating.evaluate(config, workdir, log)


def figures(results: Sequence[Metadata]) -> list[Measured]:
    """Makes the figures of one law of its results, one a seed; losses are in points of Dice."""
    contenders = [result["contenders"] for result in results]
    values = {
        "dice": [c["unmixed"]["dice"] for c in contenders],
        "dice_raw": [c["raw images"]["dice"] for c in contenders],
        "dice_loss": [100 * (c["raw images"]["dice"] - c["unmixed"]["dice"]) for c in contenders],
        "hd95": [c["unmixed"]["hd95"] for c in contenders],
        "hd95_raw": [c["raw images"]["hd95"] for c in contenders],
        "dice_mixture": [c["mixture alone"]["dice"] for c in contenders],
    }
    for attack, name in ATTACKS.items():
        values[f"{name}_over_chance"] = [r["reidentified"][attack]["over_chance"] for r in results]
    units = {"dice_loss": "points", "hd95": "mm", "hd95_raw": "mm"}
    return [
        Measured(
            name,
            statistics.mean(row),
            statistics.stdev(row) if len(row) > 1 else None,
            len(row),
            units.get(name, "1"),
        )
        for name, row in values.items()
    ]


def main() -> None:
    """Measures, prints, and with --record records."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--path", type=Path, default=Path("../shared/data/mri_hippocampus"))
    parser.add_argument("--laws", type=lambda text: text.split(","), default=LAWS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--smoke", action="store_true", help="phantoms, a minute")
    Recorder.add_flags(parser)
    given = parser.parse_args()
    recorder = Recorder("mixup_privacy", given)
    with tempfile.TemporaryDirectory() as name:
        for law in given.laws:
            results = [evaluate(law, seed, given, Path(name)) for seed in range(given.seeds)]
            rows = figures(results)
            for row in rows:
                print(json.dumps({"case": case_of(law), **row._asdict()}), flush=True)
            recorder.add(case_of(law), *rows)


if __name__ == "__main__":
    main()
