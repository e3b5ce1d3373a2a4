r"""Two hospitals that learn one distilled set together, beside one in one place and each alone.

    python -m benchmarks.federated_distillation --workdir=runs/sharing --seeds=3 --record

`auc_share`: of the set that hospitals learn by sending meta-gradients, over that of the set that is
learned in one place, on the test patients of both. `auc_NAME` and `auc_alone_NAME`: on NAME's test
patients, of the shared set and of the one that the other hospital learned alone. `bytes_ratio`: the
weights of a ResNet-18, which federated training of it sends in a round, over what a site sends here
in a step.
"""

import argparse
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import jax

from benchmarks.main_job import PROGRAM, check_fresh, over_seeds
from benchmarks.record import Measured, Recorder
from gxdistill import models
from gxdistill.pytrees import Metadata

SITES = ("montgomery", "shenzhen")
METRICS = (
    *("auc_share", "auc_shared", "auc_central"),
    *(f"auc_{kind}{site}" for site in SITES for kind in ("", "alone_")),
    *("bytes_a_step", "bytes_ratio"),
)
_TOGETHER, _SHARED = "configs/radiograph.py:known_from_noise", "configs/sharing.py"
_ALONE = "--config.evaluate.baselines=none"


def run(workdir: Path, seed: int) -> list[Measured]:
    """Learns all sets of one seed, and measures each on the test patients of both hospitals."""
    _learn(("distill",), _TOGETHER, workdir / "central", seed)
    _learn(("federate", "distill"), _SHARED, workdir / "shared", seed)
    for site in SITES:
        # The other hospital's patients are all that is left.
        out = f"--config.data.external={site.capitalize()}"
        _learn(("distill",), _TOGETHER, workdir / f"without_{site}", seed, out)
    told = {path.name: _evaluated(path, seed) for path in sorted(workdir.iterdir())}
    return figures(told, json.loads((workdir / "shared/sharing.json").read_text())["sends"])


def _learn(command: tuple[str, ...], config: str, workdir: Path, seed: int, *changes: str) -> None:
    flags = [f"--config={config}", f"--workdir={workdir}", f"--config.seed={seed}", *changes]
    subprocess.run([PROGRAM, *command, *flags], check=True)


def _evaluated(learned: Path, seed: int) -> Metadata:
    """Measures a package on the test patients of both hospitals."""
    measured = learned / "evaluated"
    subprocess.run(
        [
            *(PROGRAM, "evaluate", f"--config={_TOGETHER}", _ALONE, f"--config.seed={seed}"),
            *(f"--package={learned / 'package.gxd'}", f"--workdir={measured}"),
        ],
        check=True,
    )
    told: Metadata = json.loads((measured / "evaluation.json").read_text())
    return told["contenders"]["distilled"]


def figures(told: dict[str, Metadata], sends: int) -> list[Measured]:
    """Lists the figures of one seed.

    Args:
      told: what was measured of the sets "central", "shared", and "without_..." each site.
      sends: bytes of a site in a step.
    """
    shared, central = (told[name]["images"]["auc"]["mean"] for name in ("shared", "central"))
    rows = [
        Measured("auc_share", shared / central),
        Measured("auc_shared", shared),
        Measured("auc_central", central),
    ]
    for site in SITES:
        for kind, name in (("", "shared"), ("alone_", f"without_{site}")):
            there = told[name]["sites"][site.capitalize()]
            rows.append(Measured(f"auc_{kind}{site}", there["auc"]["mean"]))
    return [
        *rows,
        Measured("bytes_a_step", sends, unit="B"),
        Measured("bytes_ratio", resnet_bytes() / sends),
    ]


def resnet_bytes() -> int:
    """Counts the bytes of the weights of a ResNet-18 that tells three classes apart, as float32."""
    network = models.create("resnet18", shape=(224, 224, 1), classes=3)
    weights = jax.eval_shape(network.init, jax.random.key(0))
    return sum(4 * leaf.size for leaf in jax.tree.leaves(weights))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints, and with `--record` appends the figures to the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", required=True, type=Path)
    parser.add_argument("--seeds", type=int, default=3, help="number of runs; default 3")
    Recorder.add_flags(parser)
    given = parser.parse_args(arguments)
    check_fresh(given.workdir)
    recorder = Recorder("federated_distillation", given)
    rows = over_seeds([run(given.workdir / f"seed{seed}", seed) for seed in range(given.seeds)])
    recorder.add("federated_distillation", *rows)
    for row in rows:
        print(f"{row.metric}: {row.value:.4g} (n = {row.n})")


if __name__ == "__main__":
    main()
