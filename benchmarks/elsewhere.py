"""What a distilled set is worth to networks that it was not made for.

    python -m benchmarks.elsewhere --config=configs/mnist.py:convnet_random_10 \
        --package=runs/mnist_convnet_random_10/seed0/package.gxd --networks=lenet,resnet18 --record

Trains fresh networks of these kinds on a package, as `gxdistill train --networks=NAME` does, and
evaluates them on the config's test patients: accuracy over patches, plain and balanced, and what
they decide of whole images, in cases of their own, as NAME_lenet. Of several packages, as those of
several seeds, a figure is the mean.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

from benchmarks.main_job import PROGRAM, over_seeds, spread
from benchmarks.record import Measured, Recorder
from gxdistill.pytrees import Metadata


def run(config: str, package: Path, network: str, seeds: int) -> Metadata:
    """Trains and evaluates networks of one kind; returns the evaluation."""
    with tempfile.TemporaryDirectory() as folder:
        command = [PROGRAM, "evaluate", f"--config={config}", "--config.evaluate.baselines=none"]
        command += [f"--package={package}", f"--workdir={folder}"]
        command += [f"--networks={network}", f"--seeds={seeds}"]
        subprocess.run(command, check=True)
        found: Metadata = json.loads((Path(folder) / "evaluation.json").read_text())
    return found


def figures(evaluation: Metadata) -> tuple[str, list[Measured]]:
    """Names the case of an evaluation, and its figures; some where whole images are decided."""
    trained = evaluation["contenders"]["distilled"]
    case = f"{evaluation['name']}_{trained['networks']['network']['name']}"
    known = [(name, trained[name]) for name in ("accuracy", "balanced_patch_accuracy")]
    known += [(name, trained.get("images", {}).get(name)) for name in ("hm", "auc")]
    return case, [spread(name, figure) for name, figure in known if figure]


def main() -> None:
    """Trains, prints, and with `--record` appends the figures to the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, help="that the package was made with")
    parser.add_argument("--package", required=True, type=Path, nargs="+", help="one or several")
    parser.add_argument("--networks", required=True, help="NAME,...")
    parser.add_argument("--seeds", type=int, default=5, help="fresh networks of each kind")
    Recorder.add_flags(parser)
    given = parser.parse_args()
    for network in given.networks.split(","):
        recorder = Recorder("elsewhere", given)
        results = [figures(run(given.config, path, network, given.seeds)) for path in given.package]
        case = results[0][0]
        for row in over_seeds([rows for _, rows in results]):
            recorder.add(case, row)
            print(f"{case} {row.metric}: {row.value:.4g} (n = {row.n})", flush=True)


if __name__ == "__main__":
    main()
