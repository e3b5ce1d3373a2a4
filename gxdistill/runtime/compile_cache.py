"""Compiled programs, kept from one start of a command to the next.

Nothing here imports JAX, for JAX reads its environment once, when it is imported.
"""

import hashlib
import importlib.metadata
import os
import platform
import re
import warnings
from collections.abc import Callable
from pathlib import Path

from gxdistill.runtime import environment

_MAX_BYTES = 1 << 30


def _cpu() -> str:
    try:
        info = Path("/proc/cpuinfo").read_text()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return "\n".join(sorted(set(re.findall(r"^(?:model name|flags|Features)\s.*$", info, re.M))))


def default_folder() -> Path:
    """Names the user's folder for programs of this CPU, so many threads and this jaxlib.

    Programs are native code, which another CPU may lack the instructions of, and is split among
    the threads that it was compiled for; JAX takes it as good for any number.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cpu = hashlib.sha256(f"{_cpu()}\n{environment.threads()}".encode()).hexdigest()[:12]
    return cache / "gxdistill/xla" / f"jaxlib-{importlib.metadata.version('jaxlib')}-{cpu}"


def enable(log: Callable[[str], None]) -> None:
    """Has JAX keep all programs, and this process's children theirs, in the user's folder.

    What the environment already says of JAX's cache stands. A folder that cannot be used is told,
    and programs are then compiled at each start.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        try:
            folder = default_folder()
            _open(folder)
        except (OSError, RuntimeError) as error:  # RuntimeError: a user without a home
            log(f"compiled programs are not kept: {error}")
            return
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    # JAX writes an entry in place: another run's, or a killed run's, may be half there. It is then
    # compiled anew, which is not the user's concern.
    what = "Error (reading|writing) persistent compilation cache entry"
    warnings.filterwarnings("ignore", what, UserWarning)


def disable() -> None:
    """Has JAX compile everything anew and keep nothing."""
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"


def _open(folder: Path) -> None:
    """Makes the folder, for its user alone, and drops its oldest programs where it is too large."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise PermissionError(f"{folder} cannot be written")
    entries = [(entry.stat(), entry.path) for entry in os.scandir(folder)]
    excess = sum(status.st_size for status, _ in entries) - _MAX_BYTES
    for status, path in sorted(entries, key=lambda entry: entry[0].st_mtime):
        if excess <= 0:
            break
        Path(path).unlink(missing_ok=True)
        excess -= status.st_size
