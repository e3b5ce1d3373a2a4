"""Which kind of device a program is written for: this process's own, or one it is planned for."""

import contextlib
import contextvars
from collections.abc import Iterator

import jax

_PLANNED = contextvars.ContextVar[str | None]("planned", default=None)


def platform() -> str:
    """Names it as JAX does: "cpu", "gpu" or "tpu"."""
    return _PLANNED.get() or jax.default_backend()


@contextlib.contextmanager
def planned_for(platform: str) -> Iterator[None]:
    """Has programs that are traced within written for another kind of device."""
    token = _PLANNED.set(platform)
    try:
        yield
    finally:
        _PLANNED.reset(token)
