"""Bytes that a function needs, read from its jaxpr: an estimate without compiling.

Constants count nothing: XLA makes them where they are used. What it fuses away counts in full,
which made up for its scratch space on every network that was tried.
"""

from collections.abc import Callable, Iterable
from typing import Any

import jax
from jax.extend.core import Jaxpr, Literal, Var


def size(tree: Any) -> int:
    """Adds up the bytes of a pytree's leaves; shapes suffice."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def outputs(fun: Callable, *args: Any) -> int:
    """Counts the bytes of those outputs of `fun` that depend on its arguments."""
    jaxpr = jax.make_jaxpr(fun)(*args).jaxpr
    return _size(_varying(jaxpr) & _variables(jaxpr.outvars))


def peak(fun: Callable, *args: Any) -> int:
    """Counts the bytes alive at once while `fun` runs step by step, without its arguments."""
    return peak_of(jax.make_jaxpr(fun)(*args).jaxpr)


def _variables(atoms: Iterable[Any]) -> set[Var]:
    return {atom for atom in atoms if not isinstance(atom, Literal)}


def _size(variables: Iterable[Var]) -> int:
    return size([variable.aval for variable in variables])


def _varying(jaxpr: Jaxpr) -> set[Var]:
    """The variables that depend on the arguments."""
    varying = set(jaxpr.invars)
    for equation in jaxpr.eqns:
        if not varying.isdisjoint(_variables(equation.invars)):
            varying.update(equation.outvars)
    return varying


def peak_of(jaxpr: Jaxpr) -> int:
    """Counts as `peak`, of what is traced."""
    counted = _varying(jaxpr) - set(jaxpr.invars)
    last_use = {v: i for i, equation in enumerate(jaxpr.eqns) for v in _variables(equation.invars)}
    last_use |= dict.fromkeys(_variables(jaxpr.outvars), len(jaxpr.eqns))
    alive: set[Var] = set()
    most = 0
    for i, equation in enumerate(jaxpr.eqns):
        results = counted.intersection(equation.outvars) & last_use.keys()
        alive |= results
        inner = [getattr(value, "jaxpr", value) for value in equation.params.values()]
        inside = [peak_of(value) for value in inner if isinstance(value, Jaxpr)]
        most = max(most, _size(alive) + max(inside, default=0) - (_size(results) if inside else 0))
        alive = {v for v in alive if last_use[v] > i}
    return most
