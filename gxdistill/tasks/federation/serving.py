"""The server of a federation: it asks sites in rounds, and goes on without those that fail."""

import json
import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import repeat
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from gxdistill.errors import UserError
from gxdistill.federated import aggregation, exchange, rounds
from gxdistill.federated.exchange import Answer, Link
from gxdistill.jobs.devices import Mesh
from gxdistill.jobs.history import History
from gxdistill.jobs.job import Job
from gxdistill.jobs.loop import Run, Schedule
from gxdistill.pytrees import Metadata, Params
from gxdistill.runtime import interrupts
from gxdistill.runtime.console import Log
from gxdistill.tasks.federation import agreement, starting, training
from gxdistill.training.steps import LoopState

_LOOK_S = 0.5  # Between two looks for sites.
_PAUSE_S = 5.0  # Before a round is tried again of which nothing came.
_END_S = 60.0  # For the sites to take the weights at the end.


class Patience(NamedTuple):
    """How long a server waits for whom.

    Attributes:
      round_s: seconds of a round, after which it goes on without those that did not answer.
      first_s: seconds to wait for all sites before its first round.
      least: sites without which no round begins.
    """

    round_s: float = 600.0
    first_s: float = 60.0
    least: int = 1


def check(job: Job, names: Sequence[str], patience: Patience) -> None:
    """Refuses settings before any site is let in.

    Raises:
      UserError: a setting does not do, or more sites are waited for than there are.
    """
    agreement.check(job.config)
    if patience.least > len(names):
        raise UserError(
            f"--least is {patience.least}, and {len(names)} sites may take part: "
            f"{', '.join(names)}. Wait for fewer, or register more."
        )


def serve(job: Job, link: Link, names: Sequence[str], patience: Patience) -> Params:
    """Trains in rounds with the sites at a link, resuming where it was interrupted.

    Args:
      job: its settings; no image of it is read.
      link: to the sites.
      names: of all sites that may take part, in order.
      patience: see `Patience`.

    Returns:
      The weights, which the sites that are there are sent, too.

    Raises:
      UserError: a setting does not do, or the working folder is in use or of another federation.
    """
    config = job.config
    check(job, names, patience)
    with job.workdir.locked("gxdistill federate server"):
        agreed, started = agreement.settings_of(config), starting.identity_of(config)
        identity: Metadata = {**agreed, **started, "sites": list(names)}
        job.workdir.check_same(identity)
        start = starting.start_of(config, agreement.network_of(config))
        job.workdir.write_settings(identity)
        record = History(job.workdir / "rounds.jsonl")
        driver = _Rounds(config, link, tuple(names), patience, record, job.log)
        run = Run(
            what="federation",
            stepper=driver,
            schedule=Schedule(config.federation.rounds, 1),
            checkpoints=job.workdir.checkpoints,
            log=job.log,
            history=job.history,
            identity=json.dumps(identity, sort_keys=True),
            advice="Lower federation.lr or federation.server_lr, and start in another --workdir.",
        )
        learned = run(driver.first_state(start, agreement.key_of(config))).learned
        link.exchange({name: exchange.end(learned) for name in link.present()}, _END_S)
        return learned


class _Rounds:
    """Takes the rounds of a `jobs.loop.Run`, one a call, in place of a `Stepper`."""

    mesh: Mesh | None = None
    steps_per_call: int = 1

    def __init__(
        self,
        config: ConfigDict,
        link: Link,
        names: tuple[str, ...],
        patience: Patience,
        record: History,
        log: Log,
    ):
        settings = config.federation
        self._settings, self._digest = settings, agreement.digest_of(config)
        self._protection = agreement.protection_of(config)
        self._robust = training.robust_mean(settings)
        self._server = aggregation.server_optimizer(settings.server, settings.server_lr)
        self._move = jax.jit(partial(rounds.server_round, self._server, self._protection))
        self._link, self._names, self._patience = link, names, patience
        self._record, self._log = record, log
        self._here: frozenset[str] = frozenset()

    def first_state(self, params: Params, key: jax.Array) -> LoopState:
        return rounds.first_state(self._server, self._protection, params, key)

    def stream(self, key: jax.Array, first: int) -> Iterator[None]:
        del key  # That of the state is a site's and a round's.
        self._record.cut(first)
        until = time.monotonic() + self._patience.first_s
        while len(self._look()) < len(self._names) and time.monotonic() < until:
            interrupts.check()
            time.sleep(_LOOK_S)
        return repeat(None)

    def __call__(self, state: LoopState, feeds: Iterator[Any]) -> tuple[LoopState, np.ndarray]:
        next(feeds)
        number = int(state.step)
        chosen = self._chosen(state)
        while True:
            here = self._enough()
            asked = [name for name in self._names if name in here & chosen]
            answers = self._ask(state, asked) if asked else {}
            if answers or not chosen:
                break
            self._log(f"round {number + 1}: nothing came of any site; it is tried again")
            interrupts.check()
            time.sleep(_PAUSE_S)
        if not answers:
            mean = rounds.Upload(jax.tree.map(jnp.zeros_like, state.learned), *jnp.full(2, np.nan))
        else:
            weights = [self._weight(answer) for answer in answers.values()]
            uploads = [answer.upload for answer in answers.values()]
            mean = rounds.mean_of_uploads(uploads, weights, self._robust)
        return self._move(state, mean.update, mean.bit), np.asarray(mean.loss)[None]

    def _chosen(self, state: LoopState) -> set[str]:
        """Draws whom this round asks, as a simulation does."""
        share = self._settings.participation
        joins = rounds.draw_joins(state.key, state.step, len(self._names), share)
        return {name for name, joined in zip(self._names, np.asarray(joins), strict=True) if joined}

    def _weight(self, answer: Answer) -> float:
        return answer.images if self._settings.weights == "images" else 1.0

    def _look(self) -> frozenset[str]:
        """Tells who is there, and says who came and who left."""
        here = self._link.present()
        for name in sorted(here - self._here):
            self._log(f"site {name} is here")
        for name in sorted(self._here - here):
            self._log(f"site {name} is gone")
        self._here = here
        return here

    def _enough(self) -> frozenset[str]:
        """Waits until as many sites are there as a round needs."""
        said = False
        while len(here := self._look()) < self._patience.least:
            if not said:
                self._log(f"{len(here)} sites are here; waiting for {self._patience.least}")
            said = True
            interrupts.check()
            time.sleep(_LOOK_S)
        return here

    def _ask(self, state: LoopState, asked: Sequence[str]) -> dict[str, Answer]:
        number = int(state.step)
        packets = {
            name: exchange.assign(state, self._names.index(name), self._digest) for name in asked
        }
        read: Any = partial(exchange.read_answer, like=state.learned, number=number)
        answers, left_out = exchange.gather(self._link, packets, read, self._patience.round_s)
        for name, reason in left_out.items():
            self._log(f"round {number + 1}: site {name} is left out: {reason}")
        self._record.add(step=number + 1, joined=list(answers), left_out=left_out)
        return answers
