"""Compiles for devices that are not there, shows that it lives, and keeps what it learned."""

import contextlib
import gzip
import hashlib
import importlib.metadata
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax

from gxdistill import storage
from gxdistill.errors import UserError
from gxdistill.plan import counting
from gxdistill.plan.program import Program
from gxdistill.plan.targets import Target
from gxdistill.pytrees import Metadata
from gxdistill.runtime import compile_cache
from gxdistill.runtime.console import Log

_EVERY = 10.0  # Seconds between two signs of life.
_COMPILERS = {
    "cpu": (),
    "gpu": ("jax-cuda12-pjrt", "jax-cuda13-pjrt"),
    "tpu": ("libtpu",),
}  # Beside JAX.


class Compiled(NamedTuple):
    """What a compiler tells of a program, on one device.

    Attributes:
      arguments: bytes of images and state.
      temporaries: bytes of all else at once.
      outputs: bytes of results that take no argument's place.
      moved: bytes between device and memory.
      sent: bytes handed to other devices.
      compile_s: seconds that compiling took, by the clock.
    """

    arguments: int
    temporaries: int
    outputs: int
    moved: float
    sent: float
    compile_s: float

    @property
    def peak(self) -> int:
        """Bytes of a device's memory."""
        return self.arguments + self.temporaries + self.outputs


def compiled(program: Program, target: Target, *, log: Log, folder: Path) -> Compiled:
    """Compiles a program, or remembers what was found when it was compiled before.

    Args:
      program: to be compiled.
      target: what for.
      log: told now and then that the compiler is at work.
      folder: where findings are kept by program, target and versions.

    Raises:
      UserError: the compiler refuses the program: it does not fit.
    """
    with _signs_of_life(f"tracing for {target.name}", log):
        lowered = program.jitted.lower(*program.arguments)
    kept = folder / f"{_digest(lowered, target)}.json.gz"
    if kept.exists():
        with contextlib.suppress(OSError, EOFError, ValueError):  # Not ours; make it anew.
            return _read(json.loads(gzip.decompress(kept.read_bytes())), program.unknown)
    began = time.monotonic()
    try:
        with _signs_of_life(f"compiling for {target.name}", log):
            executable = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        raise UserError(
            f"the compiler for {target.name} refuses the program: {str(error).splitlines()[0]} "
            f"Lower distill.batch, distill.networks_at_once or distill.images_per_step, or choose "
            f"--config.distill.memory=nested."
        ) from error
    findings = _findings(executable, time.monotonic() - began)
    storage.write_bytes(kept, gzip.compress(storage.json_text(findings).encode()))
    return _read(findings, program.unknown)


def read(executable: jax.stages.Compiled, unknown: float, compile_s: float = 0.0) -> Compiled:
    """Reads what a compiler tells of a program that is compiled.

    Args:
      executable: the compiled program.
      unknown: how often a loop runs that does not tell.
      compile_s: seconds that compiling took.
    """
    return _read(_findings(executable, compile_s), unknown)


def default_folder() -> Path:
    """Where findings are kept: beside the user's compiled programs."""
    return compile_cache.default_folder().parents[1] / "plans"


def _findings(executable: jax.stages.Compiled, seconds: float) -> Metadata:
    """What is kept: the program too, so that what is counted in it may change."""
    memory: Any = executable.memory_analysis()
    return {
        "arguments": memory.argument_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "outputs": memory.output_size_in_bytes - memory.alias_size_in_bytes,
        "compile_s": round(seconds, 1),
        "text": executable.as_text() or "",
    }


def _read(findings: Metadata, unknown: float) -> Compiled:
    known = dict(findings)
    traffic = counting.traffic(known.pop("text"), unknown)
    return Compiled(**known, moved=traffic.moved, sent=traffic.sent)


def _digest(lowered: jax.stages.Lowered, target: Target) -> str:
    digest = hashlib.sha256(lowered.as_text().encode())
    for name in ("jax", "jaxlib", *_COMPILERS[target.platform]):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            digest.update(f"{name} {importlib.metadata.version(name)}\n".encode())
    digest.update(f"{target.platform} {target.topology} {target.compiler}".encode())
    return digest.hexdigest()


@contextlib.contextmanager
def _signs_of_life(what: str, log: Log) -> Iterator[None]:
    done, began = threading.Event(), time.monotonic()

    def speak() -> None:
        while not done.wait(_EVERY):
            log(f"{what}: {time.monotonic() - began:.0f} s so far")

    thread = threading.Thread(target=speak, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
