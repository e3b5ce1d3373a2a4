"""The network that a server runs: compiled for a few sizes of a batch, before it is ready."""

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np

from gxdistill import models
from gxdistill.pytrees import Params
from gxdistill.runtime import environment, platform

SIZES = (1, 2, 4, 8, 16, 32)  # Images of a batch; one of another number is filled up.
_LEAST_PART = 2  # Images; two threads with one image each are no faster than one thread.
_COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"


@dataclasses.dataclass(frozen=True)
class Model:
    """A network that gives each pixel the probabilities of its labels.

    Attributes:
      digest: SHA-256 by which clients know it, 64 hexadecimal digits.
      apply: `(weights, images [N, H, W, C]) -> probabilities [N, H, W, K]`, jit-able; each image
        is mapped by itself, whatever stands beside it in the batch.
      weights: its first argument.
      shape: of one image, `(H, W, C)`.
      classes: names of the K labels.
    """

    digest: str
    apply: Callable[[Params, jax.Array], jax.Array]
    weights: Params
    shape: tuple[int, int, int]
    classes: tuple[str, ...]


Load = Callable[[Path], Model]


class Compilations:
    """Counts the programs that JAX compiles outside `expected`: under load there must be none."""

    def __init__(self) -> None:
        """Begins to listen, to the whole process."""
        self.count = 0
        self._here = threading.local()
        jax.monitoring.register_event_duration_secs_listener(self._heard)

    def _heard(self, event: str, duration_secs: float, **_: str | int) -> None:
        del duration_secs
        if event == _COMPILE_EVENT and not getattr(self._here, "expected", False):
            self.count += 1

    @contextlib.contextmanager
    def expected(self) -> Iterator[None]:
        """Leaves out what this thread compiles in the block."""
        self._here.expected = True
        try:
            yield
        finally:
            self._here.expected = False


def parts_of(size: int, cores: int) -> int:
    """Chooses into how many equal parts a batch is cut, which are computed at once.

    Most of a small convolution runs on one core of a CPU, so that a whole batch takes the time of
    all its images on one; parts take their time side by side.

    Args:
      size: images of the batch.
      cores: that compute; 1 where a device shares out a batch by itself.

    Returns:
      The most parts that are no more than the cores and hold two images or more each, else 1.
    """
    most = min(cores, size // _LEAST_PART)
    return max((parts for parts in range(1, most + 1) if size % parts == 0), default=1)


class CompiledModel:
    """A model with one program for each size of a batch; no other can be run, nor compiled."""

    def __init__(self, model: Model, sizes: Sequence[int] = SIZES, *, cores: int | None = None):
        """Compiles all programs and runs each once.

        Args:
          model: with its weights.
          sizes: number of images of a batch.
          cores: that compute a batch; all that this process may use where None.

        Raises:
          ValueError: the network gives no `[N, H, W, K]`.
        """
        self.model, self.sizes = model, tuple(sorted(sizes))
        if platform.platform() != "cpu":
            cores = 1
        elif cores is None:
            cores = environment.usable_cores()
        self._parts = {size: parts_of(size, cores) for size in self.sizes}
        self._threads = ThreadPoolExecutor(max(self._parts.values()), "part")
        self._weights = jax.device_put(model.weights)
        of_parts = sorted({size // parts for size, parts in self._parts.items()})
        self._programs = {size: self._compiled(size) for size in of_parts}

    def _compiled(self, size: int) -> jax.stages.Compiled:
        model = self.model
        images = jax.ShapeDtypeStruct((size, *model.shape), np.float32)
        jitted = jax.jit(model.apply, compiler_options=models.compiler_options())
        program = jitted.lower(self._weights, images).compile()
        told = np.shape(program(self._weights, np.zeros(images.shape, np.float32)))
        expected = (size, *model.shape[:2], len(model.classes))
        if told != expected:
            raise ValueError(
                f"The network maps images {images.shape} to {told}; it must give {expected}."
            )
        return program

    def run(self, images: np.ndarray) -> tuple[np.ndarray, int]:
        """Maps images to the probabilities of their pixels' labels.

        Args:
          images: `[N, H, W, C]` float32, N at most the largest size.

        Returns:
          `[N, H, W, K]` float32, and the number of empty images that filled the batch up.
        """
        size = next(size for size in self.sizes if size >= len(images))
        padding = size - len(images)
        full = np.pad(images, ((0, padding), (0, 0), (0, 0), (0, 0))) if padding else images
        parts = np.split(full, self._parts[size])
        run = self._threads.map if len(parts) > 1 else map
        return np.concatenate(list(run(self._run, parts)))[: len(images)], padding

    def _run(self, images: np.ndarray) -> np.ndarray:
        return np.asarray(self._programs[len(images)](self._weights, images))
