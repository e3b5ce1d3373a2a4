"""What the gradient of a long inner training keeps in memory: strategies with one gradient.

- "store": what the way back through each step asks for, T times: weights and batch for SGD, the
  gradient and more for other optimisers. Nothing is computed twice.
- "recompute": the weights before each step, T times; what else is asked for is computed again.
- "nested": the weights before each of sqrt(T) segments and, while one is gone through backwards,
  before each of its sqrt(T) steps; each step is taken once more. The first two levels of Griewank
  & Walther's checkpoints, https://doi.org/10.1145/347837.347846.

The passes are written by hand: JAX's own backwards through `scan` would add up a cotangent of the
size of all distilled images at each step, and could not start at a step that is drawn at run time.
"""

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gxdistill import _check
from gxdistill.distill import footprint
from gxdistill.distill.inner import Carry, Step
from gxdistill.pytrees import Distilled

Start = int | jax.Array
_Cotangents = tuple[Carry, Distilled]


class Memory(NamedTuple):
    """What a gradient may keep.

    Attributes:
      strategy: one of `STRATEGIES`, or "auto", the fastest of them that fits the budget, and
        "nested" where none does.
      budget: bytes for the gradient of one network's training; asked by "auto" only.
    """

    strategy: str = "auto"
    budget: int = 1 << 28


class _Passes(NamedTuple):
    """Both passes through the same steps.

    Attributes:
      forward: `carry -> (last carry, what is kept)`.
      backward: `(what is kept, cotangents of the last carry and 0) -> cotangents`.
    """

    forward: Callable[[Carry], tuple[Carry, Any]]
    backward: Callable[[Any, _Cotangents], _Cotangents]


def run(step: Step, carry: Carry, data: Distilled, start: Start, count: Start) -> Carry:
    """Takes `count` steps from step `start`; either may be traced, and nothing is kept."""
    return jax.lax.fori_loop(start, start + count, lambda t, c: step(c, _batch(data, t)), carry)


def differentiable(
    step: Step, carry: Carry, data: Distilled, start: Start, *, count: int, memory: Memory
) -> Carry:
    """Takes `count` steps as `run` does, with a gradient for `carry` and `data`.

    Args:
      step: `(carry, batch) -> carry`; must not close over what is differentiated.
      carry: what the first step starts from; float leaves.
      data: S batches and T rates.
      start: number of the first step, may be traced.
      count: number of steps.
      memory: what the gradient keeps.

    Returns:
      The last carry.

    Raises:
      ValueError: the strategy is unknown.
    """
    _check.one_of("memory", memory.strategy, CHOICES)

    @jax.custom_vjp
    def taken(carry: Carry, data: Distilled, start: Start) -> Carry:
        return run(step, carry, data, start, count)

    like_carry, like_data = jax.eval_shape(lambda *x: x, carry, data)

    @cache  # Both passes ask; where there is no gradient, nobody does.
    def passes() -> Callable[[Step, Distilled, Start, int], _Passes]:
        if memory.strategy != "auto":
            return _PASSES[memory.strategy]
        return _PASSES[chosen(memory, estimates(step, like_carry, like_data, count))]

    def forward(carry: Carry, data: Distilled, start: Start) -> tuple[Carry, Any]:
        last, kept = passes()(step, data, start, count).forward(carry)
        return last, (kept, data, start)

    def backward(saved: Any, by_carry: Carry) -> tuple[Carry, Distilled, None]:
        kept, data, start = saved
        cotangents = by_carry, jax.tree.map(jnp.zeros_like, data)
        return *passes()(step, data, start, count).backward(kept, cotangents), None

    taken.defvjp(forward, backward)
    return taken(carry, data, start)


def estimates(step: Step, carry: Carry, data: Distilled, count: int) -> dict[str, int]:
    """Estimates the bytes that the gradient of `count` steps takes, for each strategy.

    Args:
      step: one inner step.
      carry: what it starts from; shapes suffice, also below.
      data: the distilled data.
      count: number of steps.
    """

    def pull(carry: Carry, data: Distilled) -> Callable[[Carry], _Cotangents]:
        return jax.vjp(step, carry, _batch(data, 0))[1]

    weights, longest = footprint.size(carry), _longest(count)
    kept = {
        "store": count * footprint.outputs(pull, carry, data),
        "recompute": count * weights,
        "nested": (longest + math.ceil(count / longest)) * weights,
    }
    # One step at work, weights and cotangents of before and after, the cotangent of the data.
    back = footprint.peak(lambda c, d, by: pull(c, d)(by), carry, data, carry)
    working = back + 4 * weights + footprint.size(data)
    return {name: size + working for name, size in kept.items()}


def chosen(memory: Memory, sizes: dict[str, int]) -> str:
    """Resolves "auto" by the estimates."""
    if memory.strategy != "auto":
        return memory.strategy
    fitting = [name for name in STRATEGIES if sizes[name] <= memory.budget]
    return fitting[0] if fitting else STRATEGIES[-1]


def _longest(count: int) -> int:
    """The longest of the segments: the root of `count`, rounded up."""
    return math.isqrt(count - 1) + 1


def _item(x: jax.Array, i: Start) -> jax.Array:
    return jax.lax.dynamic_index_in_dim(x, i, keepdims=False)


def _put(x: jax.Array, item: jax.Array, i: Start) -> jax.Array:
    return jax.lax.dynamic_update_index_in_dim(x, item, i, 0)


def _at(data: Distilled, t: Start) -> Distilled:
    """Says where the batch and the rate of step `t` lie: the S batches come in turn."""
    s = t % len(data.images)
    return Distilled(s, s, t)  # type: ignore[arg-type]


def _batch(data: Distilled, t: Start) -> Distilled:
    return jax.tree.map(_item, data, _at(data, t))


def _row(tree: Carry, i: Start) -> Carry:
    return jax.tree.map(partial(_item, i=i), tree)


def _through(
    pull: Callable[[Carry], _Cotangents], t: Start, cotangents: _Cotangents
) -> _Cotangents:
    """Takes the cotangents of carry and data back through step `t`, by its `jax.vjp`."""
    by_carry, by_data = cotangents
    by_carry, by_batch = pull(by_carry)

    def add(x: jax.Array, i: Start, dx: jax.Array) -> jax.Array:
        return _put(x, _item(x, i) + dx, i)

    return by_carry, jax.tree.map(add, by_data, _at(by_data, t), by_batch)


def _store(step: Step, data: Distilled, start: Start, count: int) -> _Passes:
    steps = start + jnp.arange(count)

    def forward(carry: Carry) -> tuple[Carry, Any]:
        return jax.lax.scan(lambda c, t: jax.vjp(step, c, _batch(data, t)), carry, steps)

    def backward(pulls: Any, cotangents: _Cotangents) -> _Cotangents:
        def back(cotangents: _Cotangents, x: Any) -> tuple[_Cotangents, None]:
            t, pull = x
            return _through(pull, t, cotangents), None

        return jax.lax.scan(back, cotangents, (steps, pulls), reverse=True)[0]

    return _Passes(forward, backward)


def _recompute(step: Step, data: Distilled, start: Start, count: int) -> _Passes:
    steps = start + jnp.arange(count)

    def forward(carry: Carry) -> tuple[Carry, Carry]:
        return jax.lax.scan(lambda c, t: (step(c, _batch(data, t)), c), carry, steps)

    def backward(carries: Carry, cotangents: _Cotangents) -> _Cotangents:
        def back(cotangents: _Cotangents, x: Any) -> tuple[_Cotangents, None]:
            t, carry = x
            return _through(jax.vjp(step, carry, _batch(data, t))[1], t, cotangents), None

        return jax.lax.scan(back, cotangents, (steps, carries), reverse=True)[0]

    return _Passes(forward, backward)


def _nested(step: Step, data: Distilled, start: Start, count: int) -> _Passes:
    longest = _longest(count)
    offsets = jnp.arange(0, count, longest)

    def forward(carry: Carry) -> tuple[Carry, Carry]:
        def segment(carry: Carry, offset: jax.Array) -> tuple[Carry, Carry]:
            length = jnp.minimum(longest, count - offset)
            return run(step, carry, data, start + offset, length), carry

        return jax.lax.scan(segment, carry, offsets)

    def backward(carries: Carry, cotangents: _Cotangents) -> _Cotangents:
        def segment(cotangents: _Cotangents, x: Any) -> tuple[_Cotangents, None]:
            offset, carry = x
            first, length = start + offset, jnp.minimum(longest, count - offset)
            history = _history(step, carry, data, first, length, room=longest)

            def back(i: jax.Array, cotangents: _Cotangents) -> _Cotangents:
                j = length - 1 - i
                batch = _batch(data, first + j)
                return _through(jax.vjp(step, _row(history, j), batch)[1], first + j, cotangents)

            return jax.lax.fori_loop(0, length, back, cotangents), None

        return jax.lax.scan(segment, cotangents, (offsets, carries), reverse=True)[0]

    return _Passes(forward, backward)


def _history(
    step: Step, carry: Carry, data: Distilled, first: Start, length: Start, *, room: int
) -> Carry:
    """Returns the carry before each of `length` steps, `[room, ...]`; the rest is zero."""

    def again(j: jax.Array, history: Carry) -> Carry:
        carry = step(_row(history, j - 1), _batch(data, first + j - 1))
        return jax.tree.map(partial(_put, i=j), history, carry)

    zeros = jax.tree.map(lambda row: jnp.zeros((room, *row.shape), row.dtype), carry)
    begin = jax.tree.map(partial(_put, i=0), zeros, carry)
    return jax.lax.fori_loop(1, length, again, begin)


_PASSES = {"store": _store, "recompute": _recompute, "nested": _nested}
STRATEGIES = tuple(_PASSES)  # fastest first
CHOICES = ("auto", *STRATEGIES)
