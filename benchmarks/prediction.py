"""How much faster a whole image is predicted than patch after patch in a loop.

    python -m benchmarks.prediction --record

The grid of 299 px at stride 50 on images 2048 px wide: `--rows` rows of 35 patches; 35 rows are the
whole image. Both ways cut the patches out, normalise, predict and take the softmax; the loop, as a
user writes it, by one jitted call for each patch. CPU milliseconds a patch, medians of runs in
turn, after a first run of each that is not timed.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from benchmarks.record import Measured, Recorder
from gxdistill import models
from gxdistill.data.batches.resident import Normalisation
from gxdistill.evaluation.patches import PatchGrid
from gxdistill.patching import patch_corners
from gxdistill.receive import predicting
from gxdistill.receive.networks import Trained
from gxdistill.runtime import compile_cache
from gxdistill.runtime.console import log

_SIZE, _STRIDE, _WIDTH = 299, 50, 2048
NETWORKS: dict[str, dict[str, Any]] = {"lenet": {}, "convnet": {"width": 32}, "resnet18": {}}
_GRID = PatchGrid(_SIZE, _STRIDE, False, Normalisation((0.4,), (0.2,)))


def looped(trained: Trained, pixels: np.ndarray) -> np.ndarray:
    """Predicts patch after patch, `[n, K]`."""
    params = jax.tree.map(lambda leaf: leaf[0], trained.params)
    apply = jax.jit(trained.network.apply)
    probabilities = []
    for row, col in patch_corners(pixels.shape, _SIZE, _STRIDE):
        patch = pixels[None, row : row + _SIZE, col : col + _SIZE] / np.float32(255)
        logits = apply(params, (patch - np.float32(0.4)) / np.float32(0.2))
        probabilities.append(np.asarray(jax.nn.softmax(logits))[0])
    return np.stack(probabilities)


def whole(trained: Trained, pixels: np.ndarray) -> np.ndarray:
    """Predicts as `gxdistill predict` does, `[n, K]`."""
    return predicting.of_patches(trained, _GRID, pixels)


def measure(name: str, rows: int, repeats: int) -> Iterator[tuple[str, float, str]]:
    """Times both ways on one image, and compares what they find."""
    network = models.create(name, shape=(_SIZE, _SIZE, 1), classes=3, **NETWORKS[name])
    params = jax.jit(network.init)(jax.random.key(0))
    trained = Trained(network, jax.tree.map(lambda leaf: leaf[None], params), {})
    shape = (_SIZE + (rows - 1) * _STRIDE, _WIDTH, 1)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    ways: dict[str, Callable[[Trained, np.ndarray], np.ndarray]] = {"loop": looped, "whole": whole}
    probabilities = {way: predict(trained, pixels) for way, predict in ways.items()}
    spent: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(repeats):
        for way, predict in ways.items():
            began = time.process_time()
            predict(trained, pixels)
            spent[way].append(1e3 * (time.process_time() - began) / len(probabilities["loop"]))
    for way, times in spent.items():
        yield f"{way}_patch_ms_{name}", statistics.median(times), "ms"
    gains = [loop / whole_image for loop, whole_image in zip(*spent.values(), strict=True)]
    yield f"speedup_{name}", statistics.median(gains), "1"
    yield f"gap_{name}", float(np.abs(probabilities["loop"] - probabilities["whole"]).max()), "1"


def main() -> None:
    """Measures, prints, and with `--record` appends the figures to the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", choices=tuple(NETWORKS))
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    Recorder.add_flags(parser)
    given = parser.parse_args()
    compile_cache.enable(log)
    for name in [given.network] if given.network else NETWORKS:
        recorder = Recorder("prediction", given)
        for metric, value, unit in measure(name, given.rows, given.repeats):
            print(f"{metric}: {value:.4g} {unit}", flush=True)
            recorder.add("prediction", Measured(metric, value, n=given.repeats, unit=unit))


if __name__ == "__main__":
    main()
