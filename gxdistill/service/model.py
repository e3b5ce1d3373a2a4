"""The network that a server runs: compiled for a few sizes of a batch, before it is ready."""

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np

from gxdistill import models
from gxdistill.pytrees import Params

SIZES = (1, 2, 4, 8, 16, 32)  # Images of a batch; one of another number is filled up.
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


class CompiledModel:
    """A model with one program for each size of a batch; no other can be run, nor compiled."""

    def __init__(self, model: Model, sizes: Sequence[int] = SIZES):
        """Compiles all programs and runs each once.

        Args:
          model: with its weights.
          sizes: number of images of a batch.

        Raises:
          ValueError: the network gives no `[N, H, W, K]`.
        """
        self.model, self.sizes = model, tuple(sorted(sizes))
        self._weights = jax.device_put(model.weights)
        self._programs = {}
        expected = (*model.shape[:2], len(model.classes))
        for size in self.sizes:
            images = jax.ShapeDtypeStruct((size, *model.shape), np.float32)
            jitted = jax.jit(model.apply, compiler_options=models.compiler_options())
            program = jitted.lower(self._weights, images).compile()
            told = np.shape(program(self._weights, np.zeros(images.shape, np.float32)))
            if told != (size, *expected):
                raise ValueError(
                    f"The network maps images {images.shape} to {told}; it must give "
                    f"{(size, *expected)}."
                )
            self._programs[size] = program

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
        return np.asarray(self._programs[size](self._weights, full))[: len(images)], padding
