"""What of a job lies on which device, and the one program that all its devices run."""

from collections.abc import Callable, Iterator
from itertools import count, repeat
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from gxdistill import models
from gxdistill.distill import outer
from gxdistill.jobs.job import Feed, Job
from gxdistill.package.seeds import Use
from gxdistill.runtime import hosts, sharding

Tree = TypeVar("Tree")


def program(job: Job, loop: outer.Distiller, feed: Feed) -> tuple[jax.stages.Wrapped, int]:
    """Builds `(state, given) -> (state, losses)`, which takes over the place of the state.

    The state and a feed that lasts lie on every device, a batch as it is shared out.

    Returns:
      The program, and how many outer steps it takes.
    """
    at_once = job.config.distill.steps_per_call if feed.lasting else 1
    several = outer.several_steps(loop, feed.draw, at_once)
    layout = _layout(job)
    if job.mesh is not None and not feed.lasting:
        layout["in_shardings"] = (layout["in_shardings"], sharding.by_rows(job.mesh))
    options = models.compiler_options()
    return jax.jit(several, donate_argnums=0, compiler_options=options, **layout), at_once


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
    """Makes the feed of the outer steps; what it gives lies where the program wants it."""
    rows, mesh = job.config.distill.batch, job.mesh
    feed = job.feed(rows)
    if mesh is None:
        return feed

    def whole(key: jax.Array, first: int) -> Iterator[Any]:
        one = next(feed.given(key, first))
        return repeat(jax.tree.map(lambda x: sharding.place(np.asarray(x), mesh), one))

    def shared(key: jax.Array, first: int) -> Iterator[Any]:
        for one in feed.given(key, first, sharding.own_rows(mesh, rows)):
            yield jax.tree.map(lambda x: sharding.place_rows(x, mesh, rows), one)

    return feed._replace(given=whole if feed.lasting else shared)


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
