"""What the environment may not decide: how JAX draws, counts and rounds.

Nothing here imports JAX, for JAX reads its environment once, when it is imported.
"""

import contextlib
import os
import sys
from collections.abc import Iterator

# A format or a resumed run depends on these; JAX's own names, and its own values where none is set.
_PINNED: dict[str, str | bool | int | None] = {
    "jax_threefry_partitionable": True,
    "jax_default_prng_impl": "threefry2x32",
    "jax_random_seed_offset": 0,
    "jax_enable_x64": False,
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
    "jax_default_matmul_precision": None,
    "jax_disable_jit": False,
    "jax_debug_nans": False,
    "jax_debug_infs": False,
}
# XLA splits sums among as many threads as there are cores, unless this says how many; a sum that is
# split otherwise is rounded otherwise.
_THREADS = "PJRT_NPROC"
_DEFAULT_THREADS = "2"


def usable_cores() -> int:
    """Counts the cores that this process may use, where the system can say, or else all."""
    usable = getattr(os, "sched_getaffinity", None)
    return len(usable(0)) if usable else os.cpu_count() or 1


def threads() -> int:
    """Tells among how many threads XLA splits its work on a CPU."""
    said = os.environ.get(_THREADS, "")
    return int(said) if said.isdecimal() and int(said) else usable_cores()


def pin() -> None:
    """Has this process and its children compute alike whatever JAX's variables say.

    On a CPU computations are split among two threads, however many cores there are, unless
    PJRT_NPROC asks for another number; it is read when JAX first computes.
    """
    os.environ.setdefault(_THREADS, _DEFAULT_THREADS)
    for name, value in _PINNED.items():
        if value is None:
            os.environ.pop(name.upper(), None)
        else:
            os.environ[name.upper()] = str(int(value)) if isinstance(value, bool) else str(value)
    if "jax" in sys.modules:
        import jax

        for name, value in _PINNED.items():
            jax.config.update(name, value)


@contextlib.contextmanager
def pinned() -> Iterator[None]:
    """Has what is drawn from seeds, and what is trained on it, not depend on JAX's settings."""
    import jax

    before = {name: getattr(jax.config, name) for name in _PINNED}
    for name, value in _PINNED.items():
        jax.config.update(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def platform_fault() -> str | None:
    """Tells where JAX_PLATFORMS names a device that is not there; None where it does not."""
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if not platforms or "jax" not in sys.modules:
        return None
    import jax

    try:
        jax.devices()
    except Exception as error:  # JAX raises assertions, too.
        reason = " ".join(str(error).split())[:200] or "it does not start"
        return (
            f"JAX_PLATFORMS={platforms} names a device that cannot be used here: "
            f"{reason.rstrip('.')}. Unset JAX_PLATFORMS, or set it to cpu."
        )
    return None
