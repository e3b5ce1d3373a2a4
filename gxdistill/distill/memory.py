"""What the gradient of a long inner training keeps in memory: strategies with one gradient.

- "store": what the way back through each step asks for, T times: weights and batch for SGD, the
  gradient and more for other optimisers. Nothing is computed twice.
- "recompute": the weights before each step, T times; what else is asked for is computed again.
- "nested": the weights before each of sqrt(T) segments and, while one is gone through backwards,
  before each of its sqrt(T) steps; each step is taken once more. Beyond 100 steps a segment has
  segments of its own: cbrt(T) weights on each of three levels, and each step is taken twice more.
  The first levels of Griewank & Walther's checkpoints, https://doi.org/10.1145/347837.347846.

The passes are written by hand: JAX's own backwards through `scan` would add up a cotangent of the
size of all distilled images at each step, and could not start at a step that is drawn at run time.
"""

import itertools
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

_TWO_LEVELS = 100  # Steps up to which a third level of "nested" would save little.

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
    return jax.lax.fori_loop(start, start + count, lambda t, c: step(c, batch_at(data, t)), carry)


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
        return jax.vjp(step, carry, batch_at(data, 0))[1]

    weights = footprint.size(carry)
    levels = itertools.pairwise((count, *segments(count), 1))
    kept = {
        "store": count * footprint.outputs(pull, carry, data),
        "recompute": count * weights,
        "nested": sum(math.ceil(whole / part) for whole, part in levels) * weights,
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


def segments(count: int) -> tuple[int, ...]:
    """Tells how many steps the segments of "nested" have, level by level."""
    if count <= _TWO_LEVELS:
        return (math.isqrt(count - 1) + 1,)
    root = math.ceil(count ** (1 / 3))
    return root * root, root


def _parts(length: Start, size: int) -> Start:
    """Counts the parts of so many steps; the last one may be shorter."""
    return -(-length // size)


def _item(x: jax.Array, i: Start) -> jax.Array:
    return jax.lax.dynamic_index_in_dim(x, i, keepdims=False)


def _put(x: jax.Array, item: jax.Array, i: Start) -> jax.Array:
    return jax.lax.dynamic_update_index_in_dim(x, item, i, 0)


def _at(data: Distilled, t: Start) -> Distilled:
    """Says where the batch and the rate of step `t` lie: the S batches come in turn."""
    s = t % len(data.images)
    return Distilled(s, s, t)  # type: ignore[arg-type]


def batch_at(data: Distilled, t: Start) -> Distilled:
    """Takes the batch of step t, t mod S, and its rate; t may be traced."""
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
        return jax.lax.scan(lambda c, t: jax.vjp(step, c, batch_at(data, t)), carry, steps)

    def backward(pulls: Any, cotangents: _Cotangents) -> _Cotangents:
        def back(cotangents: _Cotangents, x: Any) -> tuple[_Cotangents, None]:
            t, pull = x
            return _through(pull, t, cotangents), None

        return jax.lax.scan(back, cotangents, (steps, pulls), reverse=True)[0]

    return _Passes(forward, backward)


def _recompute(step: Step, data: Distilled, start: Start, count: int) -> _Passes:
    steps = start + jnp.arange(count)

    def forward(carry: Carry) -> tuple[Carry, Carry]:
        return jax.lax.scan(lambda c, t: (step(c, batch_at(data, t)), c), carry, steps)

    def backward(carries: Carry, cotangents: _Cotangents) -> _Cotangents:
        def back(cotangents: _Cotangents, x: Any) -> tuple[_Cotangents, None]:
            t, carry = x
            return _through(jax.vjp(step, carry, batch_at(data, t))[1], t, cotangents), None

        return jax.lax.scan(back, cotangents, (steps, carries), reverse=True)[0]

    return _Passes(forward, backward)


def _nested(step: Step, data: Distilled, start: Start, count: int) -> _Passes:
    sizes = segments(count)
    longest = sizes[0]
    offsets = jnp.arange(0, count, longest)

    def forward(carry: Carry) -> tuple[Carry, Carry]:
        def segment(carry: Carry, offset: jax.Array) -> tuple[Carry, Carry]:
            length = jnp.minimum(longest, count - offset)
            return _ahead(step, carry, data, start + offset, length, sizes[1:]), carry

        return jax.lax.scan(segment, carry, offsets)

    def backward(carries: Carry, cotangents: _Cotangents) -> _Cotangents:
        def segment(cotangents: _Cotangents, x: Any) -> tuple[_Cotangents, None]:
            offset, carry = x
            first, length = start + offset, jnp.minimum(longest, count - offset)
            return _back(step, carry, data, first, length, sizes, cotangents), None

        return jax.lax.scan(segment, cotangents, (offsets, carries), reverse=True)[0]

    return _Passes(forward, backward)


def _ahead(
    step: Step, carry: Carry, data: Distilled, first: Start, length: Start, sizes: tuple[int, ...]
) -> Carry:
    """Takes `length` steps, part by part: a plan then knows how often each loop runs."""
    if not sizes:
        return run(step, carry, data, first, length)
    size, *smaller = sizes

    def part(j: jax.Array, carry: Carry) -> Carry:
        taken = jnp.minimum(size, length - j * size)
        return _ahead(step, carry, data, first + j * size, taken, tuple(smaller))

    return jax.lax.fori_loop(0, _parts(length, size), part, carry)


def _back(
    step: Step,
    carry: Carry,
    data: Distilled,
    first: Start,
    length: Start,
    sizes: tuple[int, ...],
    cotangents: _Cotangents,
) -> _Cotangents:
    """Takes cotangents back through the `length` steps after `carry`, at most `sizes[0]`."""
    room, *smaller = sizes
    if not smaller:

        def again(carry: Carry, j: jax.Array) -> Carry:
            return step(carry, batch_at(data, first + j - 1))

        history = _history(again, carry, length, room=room)

        def back(i: jax.Array, cotangents: _Cotangents) -> _Cotangents:
            j = length - 1 - i
            batch = batch_at(data, first + j)
            return _through(jax.vjp(step, _row(history, j), batch)[1], first + j, cotangents)

        return jax.lax.fori_loop(0, length, back, cotangents)

    size, rest = smaller[0], tuple(smaller)
    parts = _parts(length, size)

    def again_part(carry: Carry, j: jax.Array) -> Carry:  # Only the last, not asked for, is short.
        return _ahead(step, carry, data, first + (j - 1) * size, size, rest[1:])

    history = _history(again_part, carry, parts, room=math.ceil(room / size))

    def back_part(i: jax.Array, cotangents: _Cotangents) -> _Cotangents:
        j = parts - 1 - i
        taken = jnp.minimum(size, length - j * size)
        return _back(step, _row(history, j), data, first + j * size, taken, rest, cotangents)

    return jax.lax.fori_loop(0, parts, back_part, cotangents)


def _history(
    again: Callable[[Carry, jax.Array], Carry], carry: Carry, length: Start, *, room: int
) -> Carry:
    """Returns the carry before each of `length` parts, `[room, ...]`; the rest is zero.

    Args:
      again: `(carry, j) -> carry` takes the part before part j.
      carry: before the first part.
      length: number of parts.
      room: largest number of them.
    """

    def put(j: jax.Array, history: Carry) -> Carry:
        return jax.tree.map(partial(_put, i=j), history, again(_row(history, j - 1), j))

    zeros = jax.tree.map(lambda row: jnp.zeros((room, *row.shape), row.dtype), carry)
    begin = jax.tree.map(partial(_put, i=0), zeros, carry)
    return jax.lax.fori_loop(1, length, put, begin)


_PASSES = {"store": _store, "recompute": _recompute, "nested": _nested}
STRATEGIES = tuple(_PASSES)  # fastest first
CHOICES = ("auto", *STRATEGIES)
