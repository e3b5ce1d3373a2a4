"""How small a trained network gets, and what that costs: by replay, and by essential weights.

    python -m benchmarks.package_size --record                # all networks; resumes
    python -m benchmarks.package_size --network=lenet         # one

Balanced accuracy is over one balanced draw of the test patients' patches. What is kept is chosen on
training patches. `delta_...`: the network trained on all real patches, as the difference to its
seeded start; the loss is against the same network uncompressed. `replay_...`: a package in few
bits, seed in place of initial weights; the loss is against the float32 package, and
`balanced_replay_...` beside `balanced_dense_...` tells what a replay is short of real patches.
Ratios are to the float32 weights. Each stage's result lies in the working folder.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.record import RESULTS
from configs import radiograph
from gxdistill import package, weights
from gxdistill.pytrees import Params
from gxdistill.run import compile_cache, compressing, distilling, essential
from gxdistill.run.job import Job

MAX_LOSS = 0.5
_PLAIN_SHARES = (0.3, 0.1, 0.03)
_CHANGES: dict[str, dict[str, Any]] = {
    "lenet": {"distill.start_lr": 0.05, "network.options": {}},
    "convnet": {"evaluate.ceiling.steps": 600, "distill.outer_steps": 300},
    # 64 px images: at 128 px a step of training takes this network fourteen times as long.
    "resnet18": {
        "network.options": {},
        "data.downscale": 8,
        "patch.size": 8,
        "patch.stride": 4,
        "evaluate.ceiling.steps": 150,
        "evaluate.ceiling.batch": 32,
        "compress.steps": 40,
        "compress.patches": 900,
        "distill.steps": 4,
        "distill.images_per_step": 6,
        "distill.epochs": 1,
        "distill.outer_steps": 40,
        "distill.batch": 32,
        "distill.steps_per_call": 2,
        "distill.checkpoint_every": 4,
    },
}
_SHARES = {"resnet18": (0.02, 0.04)}


class Point(NamedTuple):
    """One way to keep a network.

    Attributes:
      kind: "dense", "int8", "pruned" or "delta".
      share: of the kernels' values that is kept.
      ratio: bytes to those of float32.
      balanced: accuracy over test patches.
      training: over training patches.
    """

    kind: str
    share: float
    ratio: float
    balanced: float
    training: float


def job_of(network: str, folder: Path) -> Job:
    """Makes the job: that of configs/radiograph.py, with one network or another."""
    config = radiograph.get_config("known")
    config.name = f"package_size_{network}"
    config.network.name = network
    config.distill.update(outer_steps=400)
    config.evaluate.ceiling.batch = 128
    changes = dict(_CHANGES[network])
    config.network.options = changes.pop("network.options", config.network.options)
    config.update_from_flattened_dict(changes)
    config.distill.evaluate_every = config.distill.outer_steps
    return Job(config, folder, lambda line: print(line, file=sys.stderr, flush=True))


def bytes_of(params: Params) -> int:
    """Counts the bytes of float32 weights."""
    return 4 * sum(leaf.size for leaf in jax.tree.leaves(params))


def plain(params: Params, share: float) -> tuple[Params, int]:
    """Rounds weights to 8 bits, the smallest ones to 0; no learning on.

    Returns:
      The weights, and their bytes, coded as essential weights are.
    """
    bound = weights.threshold(params, share) / 2 if share < 1 else 0.0
    steps = weights.steps_of(params, 1.0)
    leaves, tree = jax.tree.flatten(params)
    fine = [
        np.abs(leaf).max() / 127 if leaf.ndim > 1 else step
        for leaf, step in zip(leaves, steps, strict=True)
    ]
    kept = [np.where(np.abs(leaf) >= (bound if leaf.ndim > 1 else 0), leaf, 0) for leaf in leaves]
    coded = weights.codes(kept, np.array(fine, np.float32))
    nothing = [np.zeros(leaf.shape, np.float32) for leaf in leaves]
    found = jax.tree.unflatten(tree, weights.restored(nothing, coded))
    return found, len(weights.pack(coded))


def curve(job: Job, shares: tuple[float, ...]) -> Iterator[Point]:
    """Trains the network on real patches, and keeps it in each way."""
    feed = essential.feed_of(job)
    start, delta = essential.trained(job, feed)
    dense = jax.tree.map(lambda s, d: s + d, start, delta)
    size = bytes_of(dense)

    def point(kind: str, share: float, params: Params, count: int) -> Point:
        accuracies = (essential.balanced(job, params, split) for split in ("test", "train"))
        found = Point(kind, share, count / size, *accuracies)
        job.say(str(found))
        return found

    yield point("dense", 1.0, dense, size)
    for share in shares:
        coded = essential.coded(job, feed, start, delta, share)
        yield point("delta", share, weights.restored(start, coded), len(weights.pack(coded)))
    yield point("int8", 1.0, *plain(dense, 1.0))
    for share in _PLAIN_SHARES:
        yield point("pruned", share, *plain(dense, share))


def chosen(points: list[Point]) -> Point:
    """Chooses the smallest difference that loses no more than `MAX_LOSS` on training patches."""
    dense = next(point for point in points if point.kind == "dense")
    deltas = [point for point in points if point.kind == "delta"]
    enough = [p for p in deltas if 100 * (dense.training - p.training) <= MAX_LOSS]
    return min(enough, key=lambda p: p.ratio) if enough else max(deltas, key=lambda p: p.training)


def replay(job: Job) -> dict[str, float]:
    """Distils, compresses, and measures both packages' networks."""
    distilling.distil(job)
    small = compressing.compress(job, MAX_LOSS)
    whole = package.load(job.workdir / "package.gxd").distilled
    networks = [
        distilling.replayed(job, data, 1, jax.random.key(0))
        for data in (whole, package.load(small).distilled)
    ]
    params = [jax.tree.map(lambda leaf: leaf[0], stacked) for stacked in networks]
    before, after = (essential.balanced(job, one, "test") for one in params)
    size = package.size_bytes(small)
    return {"ratio": size / bytes_of(params[0]), "bytes": size, "before": before, "after": after}


def cached(path: Path, measure: Callable[[], Any]) -> Any:
    """Returns what a file holds, or measures it and keeps it there."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        found = measure()
        path.write_text(json.dumps(found, indent=2))
    return json.loads(path.read_text())


def main() -> None:
    """Measures, prints, and with `--record` appends the figures to the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", choices=tuple(_CHANGES))
    parser.add_argument("--stage", choices=("delta", "replay"))
    parser.add_argument("--workdir", type=Path, default=Path("runs/package_size"))
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where --record appends")
    arguments = parser.parse_args()
    compile_cache.enable(print)
    for network in [arguments.network] if arguments.network else _CHANGES:
        folder = (arguments.workdir / network).absolute()
        job = job_of(network, folder)
        if arguments.stage != "replay":
            shares = _SHARES.get(network, essential.SHARES)
            found = cached(folder / "delta.json", lambda job=job, s=shares: [*curve(job, s)])
            print(found)
        if arguments.stage != "delta":
            print(cached(folder / "replay.json", lambda job=job: replay(job)))


if __name__ == "__main__":
    main()
