"""What of a job lies on which device, and the one program that all its devices run."""

from collections.abc import Callable, Iterator
from itertools import count, repeat
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from gxdistill import models, sharding
from gxdistill.distill import outer
from gxdistill.run import hosts
from gxdistill.run.job import Feed, Job, Use

Tree = TypeVar("Tree")


def program(job: Job, loop: outer.Distiller, feed: Feed) -> tuple[jax.stages.Wrapped, int]:
    """Builds `(state, given) -> (state, losses)`, which takes over the place of the state.

    State and what the feed gives lie on every device; `sharding.averaged` shares the work out.

    Returns:
      The program, and how many outer steps it takes.
    """
    at_once = job.config.distill.steps_per_call if feed.lasting else 1
    several = outer.several_steps(loop, feed.draw, at_once)
    options = models.compiler_options()
    return jax.jit(several, donate_argnums=0, compiler_options=options, **_layout(job)), at_once


def stepper(
    job: Job, loop: outer.Distiller, first: int
) -> Callable[[outer.DistillState], tuple[outer.DistillState, np.ndarray]]:
    """Builds what takes `distill.steps_per_call` outer steps; compiled when it is first called.

    Args:
      job: whose feed and devices are used.
      loop: the outer loop.
      first: number of the first outer step.

    Returns:
      `state -> (state, losses)`, which takes over the place of the state.
    """
    feed = _feed(job)
    jitted, at_once = program(job, loop, feed)
    given = feed.given(outer.draws_key(job.key(Use.LOOP)), first)
    calls = count()
    compiled: list[jax.stages.Compiled] = []

    def advance(state: outer.DistillState) -> tuple[outer.DistillState, np.ndarray]:
        parts: list[jax.Array] = []
        for _ in range(job.config.distill.steps_per_call // at_once):
            one = next(given)
            if not compiled:
                compiled.append(jitted.lower(state, one).compile())
            if not parts:
                hosts.wait(f"call {next(calls)}")  # One that compiles may be far behind.
            state, part = compiled[0](state, one)
            parts.append(part)
        return state, np.concatenate(parts)

    return advance


def copied(job: Job, state: outer.DistillState) -> outer.DistillState:
    """Copies a state to every device, to be given away."""
    return jax.jit(lambda state: jax.tree.map(jnp.copy, state), **_layout(job))(state)


def _feed(job: Job) -> Feed:
    """Makes the feed of the outer steps; what it gives lies on every device."""
    feed, mesh = job.feed(job.config.distill.batch), job.mesh
    if mesh is None:
        return feed

    def placed(given: Any) -> Any:
        return jax.tree.map(lambda x: sharding.place(np.asarray(x), mesh), given)

    def given(key: jax.Array, first: int) -> Iterator[Any]:
        each = feed.given(key, first)
        return repeat(placed(next(each))) if feed.lasting else map(placed, each)

    return feed._replace(given=given)


def fetch(tree: Tree) -> Tree:
    """Returns what lies on every device as NumPy arrays; keys stay JAX's own."""
    return jax.tree.map(
        lambda x: x if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else np.asarray(x), tree
    )


def _layout(job: Job) -> dict[str, Any]:
    if job.mesh is None:
        return {}
    where = sharding.replicated(job.mesh)
    return {"in_shardings": where, "out_shardings": where}
