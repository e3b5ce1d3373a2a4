"""What programs are planned for: one data file each, and the compiler that comes as a package."""

import difflib
import importlib
import importlib.util
import logging
import math
import os
import time
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import jax
import numpy as np

from gxdistill.errors import UserError
from gxdistill.runtime import environment

_FOLDER = Path(__file__).parent / "descriptions"
NAMES = tuple(sorted(path.stem for path in _FOLDER.glob("*.toml")))
_COMPILERS = {  # As Python and as pip calls them; whichever is there.
    "tpu": {"libtpu": "libtpu"},
    "gpu": {
        "jax_plugins.xla_cuda12": "jax-cuda12-plugin",
        "jax_plugins.xla_cuda13": "jax-cuda13-plugin",
    },
}


class Target(NamedTuple):
    """A kind of device, and how many of them.

    Attributes:
      name: the file's.
      device: in words.
      platform: "cpu", "gpu" or "tpu".
      topology: what the compiler calls it; for a TPU with the layout of its chips.
      memory: bytes of one device.
      flops: products a second at their peak, by the network's dtype.
      bandwidth: bytes a second between a device and its memory.
      link: bytes a second at which a device sends to the others.
      source: where the figures are from.
      compiler: what the compiler of a GPU is told of it, a GpuTargetConfig as text.
      efficiency: by "products" and "memory", the share of the peak that measured steps reached;
        none where nothing was measured. More than 1 where caches take what is counted as moved.
    """

    name: str
    device: str
    platform: str
    topology: str
    memory: int
    flops: dict[str, float]
    bandwidth: float
    link: float
    source: str
    compiler: str = ""
    efficiency: Mapping[str, float] = MappingProxyType({})


def load(name: str) -> Target:
    """Reads a target's description; a CPU is this machine, and measured.

    Raises:
      UserError: there is none of that name; the known ones are named.
    """
    if name not in NAMES:
        nearest = difflib.get_close_matches(name, NAMES, 1)
        hint = f" Did you mean {nearest[0]}?" if nearest else ""
        raise UserError(f"--target={name} is not known; known: {', '.join(NAMES)}.{hint}")
    known = tomllib.loads((_FOLDER / f"{name}.toml").read_text("utf-8"))
    return Target(name=name, **(_this_machine() if known["platform"] == "cpu" else {}) | known)


def devices(target: Target) -> list[jax.Device]:
    """Returns devices to compile for; they cannot compute, except a CPU.

    Raises:
      UserError: the compiler is not installed.
    """
    if target.platform == "cpu":
        return jax.devices("cpu")[:1]
    known = _COMPILERS[target.platform]
    module = next(filter(_is_installed, known), None)
    if module is None:
        raise UserError(
            f"--target={target.name} needs its compiler, the package {next(iter(known.values()))}. "
            f"Install it, best in an environment of its own: pip install 'jax[cuda12-local,tpu]'."
        )
    return _gpu(target, module) if target.platform == "gpu" else _tpu(target)


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _tpu(target: Target) -> list[jax.Device]:
    from jax.experimental import topologies

    # Without it the compiler looks for a machine with TPUs for minutes.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    # Nor is a TPU held: several plans may be made at a time.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    return topologies.get_topology_desc(platform="tpu", topology_name=target.topology).devices


def _gpu(target: Target, module: str) -> list[jax.Device]:
    from jax.experimental import topologies

    _ready_cuda(module)
    return topologies.get_topology_desc(
        platform="cuda",
        topology_name=target.topology,
        target_config=target.compiler,
        topology="1x1x1",
    ).devices


def _ready_cuda(module: str) -> None:
    """Loads the compiler; that there is no GPU is not worth a traceback."""
    # The compiler is refused otherwise where CUDA's own libraries, to run programs, are missing.
    os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")
    plugin = importlib.import_module(module)

    logging.getLogger("jax._src.xla_bridge").setLevel(logging.CRITICAL)
    try:
        plugin.initialize()
    except Exception as error:
        # JAX itself loaded it, or tried to; the compiler works nevertheless.
        logging.getLogger(__name__).debug("%s: %s", module, error)


def _this_machine() -> dict:
    """Measures products and memory for a quarter of a second, in processor seconds."""
    a = np.ones((1024, 1024), np.float32)
    product = _seconds(lambda: a @ a) / environment.usable_cores()
    copied = np.ones(2**24, np.float32)
    copy = _seconds(copied.copy)
    pages: int = os.sysconf("SC_PHYS_PAGES")
    return {
        "memory": pages * os.sysconf("SC_PAGE_SIZE"),
        "flops": {"float32": 2 * 1024**3 / product, "bfloat16": 2 * 1024**3 / product},
        "bandwidth": 2 * copied.nbytes / copy,
        "link": math.inf,
    }


def _seconds(call: Callable[[], object]) -> float:
    call()
    times = []
    for _ in range(3):
        began = time.process_time()
        call()
        times.append(time.process_time() - began)
    return min(times)
