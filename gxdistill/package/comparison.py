"""Two packages side by side: settings, results, arrays."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from gxdistill.package.content import Package, arrays_of
from gxdistill.package.fields import to_json
from gxdistill.pytrees import Metadata

_APART = ("arrays", "results")  # Fields of the manifest that have a section to themselves.


def _flat(tree: Metadata, at: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{at}{name}.")
        else:
            yield f"{at}{name}", value


def _cell(table: Metadata, name: str) -> str:
    value = table.get(name, "-")
    return f"{value:.6g}" if type(value) is float else str(value)


def _beside(first: Metadata, second: Metadata, *, all_rows: bool) -> Iterator[str]:
    """Lays two tables side by side; where they agree only if all rows are asked for."""
    left, right = (dict(_flat(table)) for table in (first, second))
    names = [*left, *(name for name in right if name not in left)]
    for name in names:
        same = name in left and name in right and left[name] == right[name]
        if all_rows or not same:
            yield f"  {name:<44} {_cell(left, name):<24} {_cell(right, name):<24}".rstrip()


def _leaves(package: Package) -> dict[str, np.ndarray]:
    paths = jax.tree_util.tree_leaves_with_path(arrays_of(package))
    return {jax.tree_util.keystr(p, simple=True, separator="."): leaf for p, leaf in paths}


def _form(array: np.ndarray | None) -> str:
    return "-" if array is None else f"{array.dtype} {list(array.shape)}"


def _distance(first: np.ndarray | None, second: np.ndarray | None) -> str:
    """Describes how far two arrays are from each other."""
    if first is None or second is None or first.shape != second.shape:
        return f"{_form(first)} | {_form(second)}"
    if first.dtype == second.dtype and first.tobytes() == second.tobytes():
        return f"{_form(first)} equal"
    a, b = (array.astype(np.float64) for array in (first, second))
    gap, size = np.sqrt(np.mean((a - b) ** 2)), np.sqrt(np.mean(a**2))
    share = f", {gap / size:.3g} of the first's" if size else ""
    return f"{_form(first)} differ: rms {gap:.3g}{share}, at most {np.abs(a - b).max():.3g}"


def diff(first: Package, second: Package) -> str:
    """Describes what two packages differ in: settings where they do, all results, all arrays.

    Args:
      first: from `load`.
      second: likewise.
    """
    tables = (
        {name: value for name, value in to_json(package.manifest).items() if name not in _APART}
        for package in (first, second)
    )
    settings = [*_beside(*tables, all_rows=False)] or ["  none"]
    results = [*_beside(first.manifest.results, second.manifest.results, all_rows=True)]
    a, b = _leaves(first), _leaves(second)
    names = [*a, *(name for name in b if name not in a)]
    arrays = [f"  {name:<44} {_distance(a.get(name), b.get(name))}" for name in names]
    lines = ["settings that differ", *settings, "results", *results, "arrays", *arrays]
    return "\n".join(lines)
