"""Dataset distillation for medical images, as pure functions over pytrees.

The names below are loaded when they are first used: `import gxdistill` costs nothing, and the
command line can print its help without JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gxdistill.distill.outer import distiller
    from gxdistill.distill.unroll import unroll
    from gxdistill.errors import UserError
    from gxdistill.patching import extract_patches, patch_corners, patch_table
    from gxdistill.pytrees import Batch, Cohort, Distilled, Network, PatchTable

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "Cohort",
    "Distilled",
    "Network",
    "PatchTable",
    "UserError",
    "distiller",
    "extract_patches",
    "patch_corners",
    "patch_table",
    "unroll",
]

_MODULES = {
    "distill.outer": ("distiller",),
    "distill.unroll": ("unroll",),
    "errors": ("UserError",),
    "patching": ("extract_patches", "patch_corners", "patch_table"),
    "pytrees": ("Batch", "Cohort", "Distilled", "Network", "PatchTable"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
