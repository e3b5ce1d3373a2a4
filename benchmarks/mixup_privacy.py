"""Dice through mixtures beside what attacks find behind them, over laws of lambda.

  python -m benchmarks.mixup_privacy --path=../shared/data/mri_hippocampus
  python -m benchmarks.mixup_privacy --path=FOLDER --measured-on=training --seeds=1
  python -m benchmarks.mixup_privacy --draw    # plots/mixup_privacy.svg of what is recorded

Each law is trained by the config `mixup` and measured for each seed, beside the same network on raw
images, the upper bound. The law of the config is the case `mixup_privacy`; it was chosen by
`--measured-on=training`, which leaves the test patients out. `reid_over_chance` is that of the best
attack that knows nothing of the references; `reid_known_over_chance` of one that knows their pool.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from benchmarks.record import ROOT, Figure, Measured, Recorder, read
from configs.mixup import get_config
from gxdistill.errors import UserError
from gxdistill.jobs.workdir import Workdir
from gxdistill.pytrees import Metadata
from gxdistill.runtime.console import log
from gxdistill.tasks.mixup import evaluating, training
from gxdistill.tasks.mixup.attacking import KNOWN, LIKENESS, NETWORK
from gxdistill.tasks.mixup.settings import default_config

PLOT = ROOT / "benchmarks/plots/mixup_privacy.svg"
LAWS = ("0.01-0.02", "0.3-0.5", "0.6-0.8")
STEPS = 600
ATTACKS = {
    LIKENESS: "reid_likeness_over_chance",
    NETWORK: "reid_network_over_chance",
    KNOWN: "reid_known_over_chance",
}
METRICS = (
    *("dice_loss", "reid_over_chance", "hd95", "hd95_raw", "dice", "dice_raw", "dice_mixture"),
    *ATTACKS.values(),
    *("ms_ssim_rebuilt", "ms_ssim_known", "ms_ssim_of_mean_patient"),
)
_TICKS = (0, 1, 3, 10, 30, 65)  # Of patients found, in units of chance.
_UNITS = {"dice_loss": "points", "hd95": "voxels", "hd95_raw": "voxels"}


def case_of(law: str) -> str:
    """Names the case of a law: "0.1-0.2" is mixup_privacy_10_20, but for the config's own law."""
    low, high = map(float, law.split("-"))
    chosen = default_config().mixup
    if (low, high) == (chosen.low, chosen.high):
        return "mixup_privacy"
    return f"mixup_privacy_{100 * low:.0f}_{100 * high:.0f}"


CASES = tuple(sorted(map(case_of, LAWS), key="mixup_privacy".__ne__))


def evaluate(
    law: str, seed: int, given: argparse.Namespace, folder: Path, *, raw: bool = True
) -> Metadata:
    """Trains and measures one law with one seed; `raw` trains the upper bound as well."""
    config = get_config("smoke" if given.smoke else "hippocampus")
    config.seed = seed
    low, high = map(float, law.split("-"))
    config.mixup.update(low=low, high=high)
    if not given.smoke:
        config.mixup.update(path=str(given.path), steps=given.steps, attack_steps=given.steps)
    config.mixup.update(measured_on=given.measured_on, beside="raw" if raw else "none")
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
    outcomes = [result["audit"]["tests"]["singling_out"]["attacks"] for result in results]
    for attack, name in ATTACKS.items():
        values[name] = [outcome[attack]["over_chance"] for outcome in outcomes]
    values["reid_over_chance"] = [
        max(attack["over_chance"] for name, attack in outcome.items() if name != KNOWN)
        for outcome in outcomes
    ]
    values["ms_ssim_rebuilt"] = [
        max(attack["ms_ssim"] for name, attack in outcome.items() if name != KNOWN)
        for outcome in outcomes
    ]
    values["ms_ssim_known"] = [outcome[KNOWN]["ms_ssim"] for outcome in outcomes]
    values["ms_ssim_of_mean_patient"] = [
        result["audit"]["tests"]["singling_out"]["ms_ssim_of_mean_patient"] for result in results
    ]
    return [
        Measured(
            name,
            statistics.mean(values[name]),
            statistics.stdev(values[name]) if len(results) > 1 else None,
            len(results),
            _UNITS.get(name, "1"),
        )
        for name in METRICS
    ]


def plot(recorded: Sequence[Figure], path: Path) -> Path:
    """Draws what mixing costs and what each attack finds against the law of lambda.

    Args:
      recorded: figures in the order in which they were measured; the latest counts.
      path: of the picture, SVG; its text stays text.

    Returns:
      `path`.

    Raises:
      UserError: a figure of a law is not recorded.
    """
    import matplotlib
    from matplotlib.figure import Figure as Picture

    latest = {(figure.case, figure.metric): figure for figure in recorded}

    def draw(ax: Any, metric: str, words: str) -> None:
        missing = [law for law in LAWS if (case_of(law), metric) not in latest]
        if missing:
            raise UserError(
                f"{case_of(missing[0])} {metric} is not recorded; see benchmarks/mixup_privacy.py."
            )
        rows = [latest[case_of(law), metric] for law in LAWS]
        spreads = [row.std or 0 for row in rows]
        ax.errorbar(LAWS, [row.value for row in rows], spreads, fmt="o-", capsize=3, label=words)

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": path.stem, "font.size": 9}):
        picture = Picture(figsize=(8, 3.2))
        picture.subplots_adjust(0.07, 0.16, 0.98, 0.88, wspace=0.18)
        utility, privacy = picture.subplots(1, 2)
        draw(utility, "dice_loss", "un-mixed")
        utility.set_title("Dice lost against raw images, points", fontsize=10)
        for attack, metric in ATTACKS.items():
            draw(privacy, metric, attack)
        privacy.axhline(1, color="#888888", linestyle=":", label="chance")
        privacy.set_yscale("symlog", linthresh=1)  # An attack may find nobody.
        privacy.set_ylim(0, 90)
        privacy.set_yticks(_TICKS, [str(tick) for tick in _TICKS])
        privacy.legend(fontsize=8)
        privacy.set_title("Patients found, in units of chance", fontsize=10)
        for ax in (utility, privacy):
            ax.set_xlabel("lambda")
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.savefig(path, metadata={"Date": None})
    return path


def main() -> None:
    """Measures, prints, and with --record records."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--path", type=Path, default=Path("../shared/data/mri_hippocampus"))
    parser.add_argument("--laws", type=lambda text: text.split(","), default=LAWS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--measured-on", choices=("test", "training"), default="test")
    parser.add_argument("--smoke", action="store_true", help="phantoms, a minute")
    Recorder.add_flags(parser)
    parser.add_argument("--draw", action="store_true", help="draws what is recorded")
    given = parser.parse_args()
    if given.draw:
        try:
            print(plot(read(given.results), PLOT))
        except UserError as error:
            sys.exit(f"benchmarks.mixup_privacy: {error}")
        return
    if given.record and given.measured_on != "test":
        parser.error("what is measured on training patients is not recorded")
    recorder = Recorder("mixup_privacy", given)
    # No law bears on the network on raw images: it is trained once a seed, with the first law.
    raw: dict[int, Metadata] = {}
    with tempfile.TemporaryDirectory() as name:
        # Seeds share their programs, of which none is older than the command.
        jax.config.update("jax_compilation_cache_dir", name)
        for law in given.laws:
            results = []
            for seed in range(given.seeds):
                result = evaluate(law, seed, given, Path(name), raw=seed not in raw)
                contenders = result["contenders"]
                contenders["raw images"] = raw.setdefault(seed, contenders.get("raw images", {}))
                results.append(result)
            rows = figures(results)
            for row in rows:
                print(json.dumps({"case": case_of(law), **row._asdict()}), flush=True)
            recorder.add(case_of(law), *rows)


if __name__ == "__main__":
    main()
