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
    one, two = (dict(_flat(table)) for table in (first, second))
    names = [*one, *(name for name in two if name not in one)]
    for name in names:
        same = name in one and name in two and one[name] == two[name]
        if all_rows or not same:
            yield f"  {name:<44} {_cell(one, name):<24} {_cell(two, name):<24}".rstrip()


def _leaves(package: Package) -> dict[str, np.ndarray]:
    paths = jax.tree_util.tree_leaves_with_path(arrays_of(package))
    return {jax.tree_util.keystr(p, simple=True, separator="."): leaf for p, leaf in paths}


def _form(array: np.ndarray | None) -> str:
    return "-" if array is None else f"{array.dtype} {list(array.shape)}"


def _distance(one: np.ndarray | None, two: np.ndarray | None) -> str:
    """Describes how far two arrays are from each other."""
    if one is None or two is None or one.shape != two.shape:
        return f"{_form(one)} | {_form(two)}"
    if one.dtype == two.dtype and one.tobytes() == two.tobytes():
        return f"{_form(one)} equal"
    a, b = (array.astype(np.float64) for array in (one, two))
    gap, size = np.sqrt(np.mean((a - b) ** 2)), np.sqrt(np.mean(a**2))
    share = f", {gap / size:.3g} of the first's" if size else ""
    return f"{_form(one)} differ: rms {gap:.3g}{share}, at most {np.abs(a - b).max():.3g}"


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
