"""Names that a package loads when they are first used, so that importing it costs nothing."""

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def names(
    package: str, modules: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Makes the `__getattr__` and the `__dir__` of a package (PEP 562).

    Args:
      package: its name.
      modules: what each of its modules defines of these names, as an import would say it: `name`,
        or `name as another` where the package has another name for it.

    Returns:
      The two functions.

    Example:
      __getattr__, __dir__ = names(__name__, {"zoo": ("NAMES", "create as create_network")})
    """
    homes = {}
    for module, entries in modules.items():
        for entry in entries:
            defined, _, alias = entry.partition(" as ")
            homes[alias or defined] = f"{package}.{module}", defined

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, defined = homes[name]
        value = getattr(importlib.import_module(module), defined)
        setattr(sys.modules[package], name, value)  # So that it is looked up but once.
        return value

    def listed() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return load, listed
