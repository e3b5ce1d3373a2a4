"""What of a loop lies on which device, and the one program that all its devices run."""

import copy
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from gxdistill import models
from gxdistill.errors import UserError
from gxdistill.jobs.problem import BatchSource
from gxdistill.runtime import hosts, sharding
from gxdistill.training.steps import Loop, LoopState, draws_key, several_steps

Tree = TypeVar("Tree")
Mesh = jax.sharding.Mesh


def all_devices() -> tuple[jax.Device, ...] | None:
    """Returns the devices of all processes; None where there is but one."""
    return None if jax.device_count() == 1 else tuple(jax.devices())


def card_memory() -> int | None:
    """Returns the bytes of a device's memory that JAX may take; None of a CPU."""
    return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")


def make_mesh(devices: Sequence[jax.Device] | None, *, networks: int, batch: int) -> Mesh | None:
    """Arranges devices for the networks and the batch of an outer step.

    Args:
      devices: None for no mesh.
      networks: the setting `distill.networks`.
      batch: the setting `distill.batch`.

    Raises:
      UserError: they cannot share the batch evenly.
    """
    if devices is None:
        return None
    mesh = sharding.make_mesh(networks, devices)
    rows = mesh.devices.shape[1]
    if batch % rows:
        raise UserError(
            f"distill.batch is {batch}, which {rows} devices cannot share evenly. Choose a "
            f"multiple of {rows}, or more distill.networks (now {networks}), which are shared out "
            f"first among the {len(devices)} devices."
        )
    return mesh


def jit_steps(
    loop: Loop, source: BatchSource, steps_per_call: int, mesh: Mesh | None
) -> tuple[jax.stages.Wrapped, int]:
    """Builds `(state, feed) -> (state, losses)`, which takes over the place of the state.

    The state and a reusable feed lie on every device, a batch as it is shared out.

    Returns:
      The program, and how many steps it takes.
    """
    at_once = steps_per_call if source.reusable else 1
    several = several_steps(loop, source.draw, at_once)
    layout = _layout(mesh)
    if mesh is not None and not source.reusable:
        layout["in_shardings"] = (layout["in_shardings"], sharding.by_rows(mesh))
    options = models.compiler_options()
    return jax.jit(several, donate_argnums=0, compiler_options=options, **layout), at_once


class Stepper:
    """Takes the steps of a loop by one program, which is compiled once for any number of runs."""

    def __init__(
        self,
        loop: Loop,
        source: BatchSource,
        steps_per_call: int,
        *,
        mesh: Mesh | None = None,
        rows: int = 0,
    ):
        """Compiles nothing yet.

        Args:
          loop: the pair of functions.
          source: of its batches.
          steps_per_call: steps that one call takes.
          mesh: of the devices that share the steps; None is one device.
          rows: of a batch, where there is a mesh.
        """
        self.mesh, self.steps_per_call, self._rows = mesh, steps_per_call, rows
        self._source = source if mesh is None else _shared_out(source, mesh, rows)
        self._jitted, self._at_once = jit_steps(loop, self._source, steps_per_call, mesh)
        self._compiled: list[jax.stages.Compiled] = []  # One at most, for all who share it.

    def fed_by(self, source: BatchSource) -> "Stepper":
        """Takes the same steps by the same program, on feeds of the same shapes from elsewhere."""
        other = copy.copy(self)
        other._source = source if self.mesh is None else _shared_out(source, self.mesh, self._rows)
        return other

    def stream(self, key: jax.Array, first: int) -> Iterator[Any]:
        """Returns the feeds from step `first` on; `key` is the run's, see `training.steps`."""
        return self._source.stream(draws_key(key), first)

    def __call__(self, state: LoopState, feeds: Iterator[Any]) -> tuple[LoopState, np.ndarray]:
        """Takes `steps_per_call` steps, and takes over the place of the state.

        Returns:
          The state, and the loss of each step.
        """
        parts: list[jax.Array] = []
        for _ in range(self.steps_per_call // self._at_once):
            feed = next(feeds)
            if not self._compiled:
                self._compiled.append(self._jitted.lower(state, feed).compile())
            if not parts:
                hosts.wait("steps")  # A process that compiles may be far behind.
            state, part = self._compiled[0](state, feed)
            parts.append(part)
        return state, np.concatenate(parts)


def replicate(state: Tree, mesh: Mesh | None) -> Tree:
    """Copies a state to every device, to be given away."""
    return jax.jit(lambda state: jax.tree.map(jnp.copy, state), **_layout(mesh))(state)


def _shared_out(source: BatchSource, mesh: Mesh, rows: int) -> BatchSource:
    """Has the feeds of a source lie where the program wants them."""

    def whole(key: jax.Array, first: int) -> Iterator[Any]:
        feed = next(source.stream(key, first))
        return repeat(jax.tree.map(lambda x: sharding.place(np.asarray(x), mesh), feed))

    def parts(key: jax.Array, first: int) -> Iterator[Any]:
        for feed in source.stream(key, first, sharding.own_rows(mesh, rows)):
            yield jax.tree.map(lambda x: sharding.place_rows(x, mesh, rows), feed)

    stream: Callable[..., Iterator[Any]] = whole if source.reusable else parts
    return source._replace(stream=stream)


def fetch(tree: Tree) -> Tree:
    """Returns what lies on every device as NumPy arrays; keys stay JAX's own."""
    return jax.tree.map(
        lambda x: x if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else np.asarray(x), tree
    )


def _layout(mesh: Mesh | None) -> dict[str, Any]:
    if mesh is None:
        return {}
    where = sharding.replicated(mesh)
    return {"in_shardings": where, "out_shardings": where}
