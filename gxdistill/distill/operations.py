"""What a traced program computes: loops counted as often as they run.

A compiler's own cost analysis counts a loop's body once, or is missing. Products are counted in the
traced program, whatever the compiler makes of them.
"""

import math
from collections.abc import Iterator
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr


def products(jaxpr: Jaxpr, unknown: float = 1.0) -> float:
    """Counts the floating-point operations of matrix products and convolutions.

    Args:
      jaxpr: of the program of one device.
      unknown: how often a loop runs whose number of turns is drawn at run time.
    """
    total = 0.0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "dot_general":
            total += 2 * _size(equation.outvars[0]) * _contracted(equation)
        elif name == "conv_general_dilated":
            total += 2 * _size(equation.outvars[0]) * _window(equation)
        elif name == "cond":
            total += max(products(branch.jaxpr, unknown) for branch in params["branches"])
        else:
            turns = {"scan": params.get("length", 1), "while": unknown}.get(name, 1)
            total += turns * sum(products(inner, unknown) for inner in _inner(params))
    return total


def _size(variable: Any) -> int:
    return math.prod(variable.aval.shape)


def _inner(params: dict[str, Any]) -> Iterator[Jaxpr]:
    for value in params.values():
        if isinstance(value, ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, Jaxpr):
            yield value


def _contracted(equation: Any) -> int:
    shape = equation.invars[0].aval.shape
    (left, _), _ = equation.params["dimension_numbers"]
    return math.prod(shape[axis] for axis in left)


def _window(equation: Any) -> float:
    """Products of one output; zeros that dilate the input are none."""
    kernel = equation.invars[1].aval.shape
    out_axis = equation.params["dimension_numbers"].rhs_spec[0]
    return math.prod(kernel) / kernel[out_axis] / math.prod(equation.params["lhs_dilation"])
