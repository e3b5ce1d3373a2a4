"""How small a trained network gets, and what that costs: by replay, and by essential weights.

    python -m benchmarks.package_size --record                # all networks; resumes
    python -m benchmarks.package_size --network=lenet         # one

Balanced accuracy is over one balanced draw of the test patients' patches, losses are in points of
it; what is kept is chosen on training patches. All losses are against the network that was trained
on all real patches, and ratios to its float32 weights. `delta_...`: its weights told by their seed
and a few shared values; of their bytes, without the header that tells of the network. `replay_...`:
the network that a package of 8-bit images and a seed trains; of the whole package's bytes. Of that
loss, `rounding_loss_...` is what the images' 8 bits cost, against the package in float32. Each
stage's result lies in the working folder.
"""

import argparse
import json
import lzma
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.record import RESULTS, Figure, Measured, Recorder, read
from benchmarks.scaling import PLOTS
from configs import radiograph
from gxdistill import package
from gxdistill.jobs.job import Job
from gxdistill.jobs.workdir import Workdir
from gxdistill.package import shared_values
from gxdistill.pytrees import Params
from gxdistill.runtime import compile_cache
from gxdistill.runtime.console import log
from gxdistill.tasks.distillation import compressing, distilling, weights

MAX_LOSS = 0.5
_PLAIN_SHARES = (0.3, 0.1, 0.03)
_CHANGES: dict[str, dict[str, Any]] = {
    "lenet": {
        "network.options": {},
        "distill.start_lr": 0.05,
        "evaluate.ceiling.steps": 4000,
        "compress.weights.steps": 16000,
    },
    "convnet": {
        "distill.outer_steps": 300,
        "evaluate.ceiling.steps": 1000,
        "compress.patches": 12000,
        "compress.weights.steps": 16000,
        "compress.weights.decay": 0.001,
    },
    # 64 px images: at 128 px a distilled image has four times the bytes, a step much more work.
    "resnet18": {
        "network.options": {},
        "data.downscale": 8,
        "patch.size": 8,
        "patch.stride": 6,
        "evaluate.threshold_images": 30,
        "evaluate.ceiling.steps": 900,
        "evaluate.ceiling.batch": 32,
        "evaluate.ceiling.networks": 4,  # whose labels the images get
        "compress.steps": 0,
        "compress.patches": 20000,
        "compress.weights.steps": 3000,
        "compress.weights.decay": 0.001,
        # Nothing is learned through so many steps of this network in hours: images of a mixture,
        # and trained networks' labels for them.
        "distill.outer_steps": 0,
        "distill.started_from": "mixture",
        "distill.started_labels": "networks",
        "distill.steps": 100,
        "distill.images_per_step": 32,
        "distill.epochs": 24,
        "distill.inner": "adam",
        "distill.start_lr": 0.001,
        "distill.start_schedule": "cosine",
    },
}
_SHARES = {
    "lenet": (0.02, 0.04, 0.06, 0.07),  # Values, for each weight.
    "convnet": (0.068,),
    "resnet18": (0.1,),
}


class Point(NamedTuple):
    """One way to keep a network.

    Attributes:
      kind: "dense", "int8", "pruned" or "shared".
      share: of the kernels' values that is kept; or shared values, for each weight.
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
    """Makes the job: that of radiograph:known_from_noise, with one network or another."""
    config = radiograph.get_config("known_from_noise")
    config.name = f"package_size_{network}"
    config.network.name = network
    config.distill.update(outer_steps=400)
    config.evaluate.ceiling.batch = 128
    changes = dict(_CHANGES[network])
    config.network.options = changes.pop("network.options", config.network.options)
    config.update_from_flattened_dict(changes)
    config.distill.evaluate_every = max(1, config.distill.outer_steps)
    return Job(config, Workdir(folder), log)


def bytes_of(params: Params) -> int:
    """Counts the bytes of float32 weights."""
    return 4 * sum(leaf.size for leaf in jax.tree.leaves(params))


def plain(params: Params, share: float) -> tuple[Params, int]:
    """Rounds weights to 8 bits, each leaf by its largest, the smallest kernel values to 0.

    Returns:
      The weights, trained no further, and their bytes by LZMA.
    """
    leaves, tree = jax.tree.flatten(jax.tree.map(np.asarray, params))
    sizes = np.concatenate([np.abs(leaf).ravel() for leaf in leaves if leaf.ndim > 1])
    bound = np.quantile(sizes, 1 - share)
    kept = [np.where((np.abs(leaf) >= bound) | (leaf.ndim == 1), leaf, 0) for leaf in leaves]
    steps = [np.float32(max(np.abs(leaf).max() / 127, 1e-30)) for leaf in leaves]
    coded = [np.rint(leaf / step).astype(np.int8) for leaf, step in zip(kept, steps, strict=True)]
    rounded = [jnp.asarray(step * code) for code, step in zip(coded, steps, strict=True)]
    size = len(lzma.compress(b"".join(code.tobytes() for code in coded))) + 4 * len(steps)
    return jax.tree.unflatten(tree, rounded), size


def curve(job: Job, shares: tuple[float, ...]) -> Iterator[Point]:
    """Trains the network on real patches, and keeps it in each way."""
    start, dense = weights.trained(job)
    size = bytes_of(dense)

    def point(kind: str, share: float, params: Params, count: int) -> Point:
        accuracies = (compressing.balanced(job, params, split) for split in ("test", "train"))
        measured = Point(kind, share, count / size, *accuracies)
        job.log(str(measured))
        return measured

    yield point("dense", 1.0, dense, size)
    yield point("int8", 1.0, *plain(dense, 1.0))
    for share in _PLAIN_SHARES:
        yield point("pruned", share, *plain(dense, share))
    for share in shares:
        coded = weights.coded(job, start, dense, share)
        yield point(
            "shared", share, shared_values.restored(start, coded), len(shared_values.pack(coded))
        )


def chosen(points: list[Point]) -> Point:
    """Chooses the smallest difference that loses no more than `MAX_LOSS` on training patches."""
    dense = next(point for point in points if point.kind == "dense")
    deltas = [point for point in points if point.kind == "shared"]
    enough = [p for p in deltas if 100 * (dense.training - p.training) <= MAX_LOSS]
    return min(enough, key=lambda p: p.ratio) if enough else max(deltas, key=lambda p: p.training)


def replay(job: Job) -> dict[str, float]:
    """Distils, rounds to 8 bits, and measures both packages' networks."""
    distilling.distil(job)
    small = compressing.compress(job, MAX_LOSS, ("uint8",))
    whole = package.load(job.workdir / "package.gxd").distilled
    networks = [
        distilling.replay_networks(job, data, 1, jax.random.key(0))
        for data in (whole, package.load(small).distilled)
    ]
    params = [jax.tree.map(lambda leaf: leaf[0], stacked) for stacked in networks]
    before, after = (compressing.balanced(job, one, "test") for one in params)
    size = package.size_bytes(small)
    return {"ratio": size / bytes_of(params[0]), "bytes": size, "before": before, "after": after}


def cached(path: Path, measure: Callable[[], Any]) -> Any:
    """Returns what a file holds, or measures it and keeps it there."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        result = measure()
        path.write_text(json.dumps(result, indent=2))
    return json.loads(path.read_text())


Row = tuple[str, str, float, str]  # Case, metric, value, unit.


def figures(network: str, points: list[Point], replayed: dict[str, float]) -> Iterator[Row]:
    """Lists what is recorded of a network; of a replay that was left out, nothing."""
    for point in points:
        where = f"package_size_{network}", f"{point.kind}_{1000 * point.share:04.0f}"
        yield where[0], f"{where[1]}_ratio", point.ratio, "1"
        yield where[0], f"{where[1]}_balanced", point.balanced, "1"
    dense, small = next(point for point in points if point.kind == "dense"), chosen(points)
    kept = [("dense", 1.0, dense.balanced), ("delta", small.ratio, small.balanced)]
    if replayed:
        kept.append(("replay", replayed["ratio"], replayed["after"]))
        loss = 100 * (replayed["before"] - replayed["after"])
        yield "package_size", f"rounding_loss_{network}", loss, "points"
    for way, ratio, balanced in kept:
        yield "package_size", f"balanced_{way}_{network}", balanced, "1"
        if way != "dense":
            yield "package_size", f"{way}_ratio_{network}", ratio, "1"
            loss = 100 * (dense.balanced - balanced)
            yield "package_size", f"{way}_loss_{network}", loss, "points"


_CURVES = {
    "shared": ("o-", "#1f5fa8", "seed and shared values"),
    "replay": ("*", "#7a3b8f", "seed and synthetic images"),
    "pruned": ("s--", "#b0552a", "plain pruning, 8 bits"),
    "int8": ("^", "#3a7d44", "plain 8 bits"),
    "dense": ("D", "0.3", "dense float32"),
}


def plot(recorded: Sequence[Figure], folder: Path) -> Path:
    """Draws accuracy against size, a panel for each network of which points are recorded.

    Returns:
      The picture, SVG; its text stays text.
    """
    import matplotlib
    from matplotlib.figure import Figure as Picture

    known = {network: _points(network, recorded) for network in _CHANGES}
    known = {network: points for network, points in known.items() if points}
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "size", "font.size": 9}):
        picture = Picture(figsize=(8, 3.4))
        picture.subplots_adjust(0.07, 0.28, 0.98, 0.9, 0.25)
        for place, (network, points) in enumerate(known.items(), start=1):
            ax = picture.add_subplot(1, len(known), place)
            for kind, (line, colour, label) in _CURVES.items():
                of_kind = sorted(point for point in points if point[0] == kind)
                _, ratios, balanced = zip(*of_kind, strict=True) if of_kind else ((), (), ())
                ax.plot(100 * np.array(ratios), balanced, line, color=colour, label=label)
            ax.set_xscale("log")
            ax.set_title(network)
            ax.set_xlabel("% of the float32 bytes")
            ax.set_ylabel("balanced accuracy" if place == 1 else "")
        words = picture.axes[0].get_legend_handles_labels()
        picture.legend(*words, loc="lower center", ncols=5, fontsize=8, columnspacing=1)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "accuracy_against_size.svg"
        picture.savefig(path, metadata={"Date": None})
    return path


def _points(network: str, recorded: Sequence[Figure]) -> list[tuple[str, float, float]]:
    """Finds kind, ratio and accuracy of what was recorded last.

    Shares that were given up before are of other networks: a curve holds one commit's only.
    """
    of_network = [figure for figure in recorded if figure.case == f"package_size_{network}"]
    values = {
        figure.metric: figure.value
        for figure in of_network
        if figure.commit == of_network[-1].commit
    }
    names = {metric.rpartition("_")[0] for metric in values}
    points = [
        (name.partition("_")[0], values[f"{name}_ratio"], values[f"{name}_balanced"])
        for name in names
    ]
    both = {figure.metric: figure.value for figure in recorded if figure.case == "package_size"}
    if f"replay_ratio_{network}" in both:
        ratio, balanced = both[f"replay_ratio_{network}"], both[f"balanced_replay_{network}"]
        points.append(("replay", ratio, balanced))
    return points


def _measured(network: str, stage: str, workdir: Path) -> Iterator[Row]:
    folder = (workdir / network).absolute()
    job = job_of(network, folder)
    points = cached(folder / "delta.json", lambda: [*curve(job, _SHARES[network])])
    replayed = {} if stage == "delta" else cached(folder / "replay.json", lambda: replay(job))
    return figures(network, [Point(*row) for row in points], replayed)


def main() -> None:
    """Measures, prints, and with `--record` appends the figures to the results and draws them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", choices=tuple(_CHANGES))
    parser.add_argument("--stage", choices=("delta", "all"), default="all")
    parser.add_argument("--workdir", type=Path, default=Path("runs/package_size"))
    Recorder.add_flags(parser)
    arguments = parser.parse_args()
    recorder = Recorder("package_size", arguments)
    compile_cache.enable(log)
    networks = [arguments.network] if arguments.network else [*_CHANGES]
    rows = [
        row
        for network in networks
        for row in _measured(network, arguments.stage, arguments.workdir)
    ]
    for case, metric, value, unit in rows:
        print(f"{case} {metric}: {value:.4g} {unit}")
        recorder.add(case, Measured(metric, value, unit=unit))
    if arguments.record and arguments.results == RESULTS:
        print(plot(read(RESULTS), PLOTS))


if __name__ == "__main__":
    main()
