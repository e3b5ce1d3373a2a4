"""One program for one device, several, and several hosts: the mesh, and what lies where on it.

Networks and real images are shared out; the distilled data, few as they are, lie on every device.
A device trains its networks on them and judges these by its real images. The way back through the
training is linear, so that each device goes it for its own part of the loss, and what is learned is
all that is ever added up: a step communicates the distilled data's size once, whatever the network.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

NETWORK, DATA, PATIENT = "network", "data", "patient"

Learned = TypeVar("Learned")
Rows = TypeVar("Rows")
Mean = TypeVar("Mean")


def sides(networks: int, devices: int) -> tuple[int, int]:
    """Splits devices in two: as many as can share the networks evenly, and what shares the batch.

    Sharing networks comes first, for devices that share a batch all train the same networks.
    """
    along = math.gcd(networks, devices)
    return along, devices // along


def make_mesh(
    networks: int, devices: Sequence[jax.Device] | None = None, *, rows: str = DATA
) -> Mesh:
    """Arranges devices by `sides`.

    Args:
      networks: initial weights of one outer step.
      devices: all of all processes by default.
      rows: what the second axis is called: "data", or "patient" where a batch's rows are patients.

    Returns:
      A mesh `[network, rows]`.
    """
    devices = jax.devices() if devices is None else devices
    shape = sides(networks, len(devices))
    return jax.make_mesh(shape, (NETWORK, rows), (AxisType.Auto,) * 2, devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """Lies on every device as a whole."""
    return NamedSharding(mesh, P())


def place(array: np.ndarray, mesh: Mesh) -> jax.Array:
    """Puts an array on every device as a whole; each process feeds its own devices."""
    return jax.make_array_from_callback(array.shape, replicated(mesh), lambda at: array[at])


def by_rows(mesh: Mesh) -> NamedSharding:
    """Lies in as many parts as share a batch, one of them on each device."""
    return NamedSharding(mesh, P(mesh.axis_names[1]))


def own_rows(mesh: Mesh, rows: int) -> np.ndarray:
    """Tells which rows of a batch lie on this process's devices, in rising order."""
    width = rows // mesh.devices.shape[1]
    here = jax.process_index()
    columns = [any(d.process_index == here for d in column) for column in mesh.devices.T]
    return np.flatnonzero(np.repeat(columns, width))


def place_rows(array: np.ndarray, mesh: Mesh, rows: int) -> jax.Array:
    """Puts a batch of `rows` in parts on the devices.

    Args:
      array: this process's rows of it, those of `own_rows`.
      mesh: of all processes' devices.
      rows: of the whole batch; `mesh` shares them evenly.
    """
    where = np.full(rows, -1)
    where[own_rows(mesh, rows)] = np.arange(len(array))

    def part(at: Any) -> np.ndarray:
        return array[where[at[0]]]

    return jax.make_array_from_callback((rows, *array.shape[1:]), by_rows(mesh), part)


def averaged(
    fun: Callable[[Learned, jax.Array, Rows], Mean], mesh: Mesh
) -> Callable[[Learned, jax.Array, Rows], Mean]:
    """Shares `fun` out over a mesh and averages what comes of it over all devices.

    Args:
      fun: `(learned, keys, batch) -> a tree`, the mean over the keys and over the batch's rows.
      mesh: from `make_mesh`; its sides divide the number of keys and of rows.

    Returns:
      The same function, of the whole keys `[N]` and batch, and with the whole mean on each device.
    """
    axes = tuple(mesh.axis_names)

    def share(learned: Learned, keys: jax.Array, batch: Rows) -> Mean:
        # As one array: several sums at a time may overtake each other between processes.
        flat, restore = ravel_pytree(fun(learned, keys, batch))
        return restore(jax.lax.pmean(flat, axes))

    # Gradients are taken within `fun`: each device's own, so that JAX need not tell which differ.
    specs = P(), P(axes[0]), P(axes[1])
    return jax.shard_map(share, mesh=mesh, in_specs=specs, out_specs=P(), check_vma=False)
