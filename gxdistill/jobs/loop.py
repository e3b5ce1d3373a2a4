"""One resumable loop for all training: whatever is learned, by whatever gradient."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from gxdistill.errors import UserError
from gxdistill.jobs import devices
from gxdistill.jobs.devices import Mesh
from gxdistill.jobs.history import History
from gxdistill.privacy.ledger import BudgetError, Ledger
from gxdistill.pytrees import Params
from gxdistill.runtime import hosts, interrupts
from gxdistill.runtime.console import Log, Progress
from gxdistill.storage import checkpoint
from gxdistill.training.steps import LoopState

_PATIENCE = 20  # Steps that may diverge in a row.

Measure = Callable[[Params, int], dict[str, float]]
# `(ledger, key, first, count) -> ledger` books the releases of `count` steps from `first` on; `key`
# is the run's.
Book = Callable[[Ledger, jax.Array, int, int], Ledger]


class Schedule(NamedTuple):
    """When a loop does what; every number is a multiple of the stepper's `steps_per_call`.

    Attributes:
      steps: in all.
      checkpoint_every: steps between two checkpoints; there is one at the end, too.
      evaluate_every: steps between two periodic measures; 0 for none.
    """

    steps: int
    checkpoint_every: int
    evaluate_every: int = 0


class Steps(Protocol):
    """What takes the steps of a run: a `devices.Stepper`, or a server with its sites."""

    mesh: Mesh | None  # Devices that share the steps; None is one device.
    steps_per_call: int

    def stream(self, key: jax.Array, first: int) -> Iterator[Any]:
        """Returns the feeds from step `first` on; `key` is the run's."""

    def __call__(self, state: LoopState, feeds: Iterator[Any]) -> tuple[LoopState, np.ndarray]:
        """Takes the steps, and takes over the place of the state; returns each step's loss, too."""


@dataclasses.dataclass(frozen=True)
class Run:
    """A loop that goes on where it was interrupted.

    Attributes:
      what: is done, in one word for people: "distilling".
      stepper: takes the steps.
      schedule: when what is done.
      checkpoints: folder of its own.
      log: told the progress.
      history: of losses and measures; None keeps none.
      identity: of what its result depends on; a checkpoint of another one is no beginning.
      begin: changes the first state before the first step; not where the run is resumed.
      measure: `(learned, step) -> figures` for the history.
      advice: what to do where it diverges, as a sentence.
      ledger: what was released before the first step; None where nothing is private.
      book: books steps before they are taken.
    """

    what: str
    stepper: Steps
    schedule: Schedule
    checkpoints: Path
    log: Log
    history: History | None = None
    identity: str = ""
    begin: Callable[[LoopState], LoopState] = lambda state: state
    measure: Measure | None = None
    advice: str = "Lower the learning rate, and start in another --workdir."
    ledger: Ledger | None = None
    book: Book | None = None

    def __call__(self, state: LoopState) -> LoopState:
        """Takes all steps from a first state on, or from the newest checkpoint.

        The first SIGINT or SIGTERM ends it after the call in flight with a checkpoint, where one
        process works alone.

        Args:
          state: as `Loop.init` made it.

        Returns:
          The last state, as NumPy arrays.

        Raises:
          KeyboardInterrupt: on SIGINT, and as `Terminated` on SIGTERM.
          UserError: it diverged: twenty steps in a row, or all of them.
        """
        return self.accounted(state)[0]

    def accounted(self, state: LoopState) -> tuple[LoopState, Ledger | None]:
        """Takes all steps, as a call does, and returns the ledger, too.

        It is saved with every checkpoint. Steps are booked before they are taken, and the run ends,
        with a checkpoint, before the first that the budget does not allow.

        Raises:
          BudgetError: the budget does not even allow the first.
        """
        state, ledger = self._resumed(state)
        state = devices.replicate(state, self.stepper.mesh)
        first = int(state.step)
        if self.history:
            self.history.cut(first)
        feeds = self.stepper.stream(state.key, first)
        clock = Progress(self.log, self.what, first)
        if first < self.schedule.steps:  # What is compiled is compiled before signals wait.
            ledger = self._booked(ledger, state)
            state = self._advanced(state, ledger, feeds, clock)
        with _held_back():
            while (done := int(state.step)) < self.schedule.steps:
                try:
                    interrupts.check()
                    booked = self._booked(ledger, state)
                except KeyboardInterrupt:
                    self._save(state, ledger)
                    self.log(f"{self.what}: stopped at step {done}, with a checkpoint")
                    raise
                except BudgetError as error:
                    self._save(state, ledger)
                    self.log(f"warning: {self.what} ends at step {done}: {error}")
                    break
                state, ledger = self._advanced(state, booked, feeds, clock), booked
        if int(state.skipped) == int(state.step) > 0:
            raise UserError(f"Each of the {int(state.step)} steps diverged. {self.advice}")
        return devices.fetch(state), ledger

    def _booked(self, ledger: Ledger | None, state: LoopState) -> Ledger | None:
        if ledger is None or self.book is None:
            return ledger
        return self.book(ledger, state.key, int(state.step), self.stepper.steps_per_call)

    def _resumed(self, state: LoopState) -> tuple[LoopState, Ledger | None]:
        """Returns state and ledger of the first process's newest checkpoint, or the first ones."""
        ledger = self.ledger
        restored = checkpoint.restore(self.checkpoints, state)
        if restored is None or restored[2].get("identity", "") != self.identity:
            state = self.begin(state)
        else:
            step, state, metadata = restored
            ledger = None if ledger is None else Ledger.from_dict(metadata.get("ledger", {}))
            is_done = step == self.schedule.steps
            self.log(f"{self.what}: {'done already' if is_done else f'resuming at step {step}'}")
        key = jax.random.key_data(state.key)
        state = hosts.from_first(dataclasses.replace(state, key=key))
        return dataclasses.replace(state, key=jax.random.wrap_key_data(state.key)), ledger

    def _advanced(
        self, state: LoopState, ledger: Ledger | None, feeds: Iterator[Any], clock: Progress
    ) -> LoopState:
        state, losses = self.stepper(state, feeds)
        done = int(state.step)
        if self.history and np.isfinite(losses).any():
            self.history.add(step=done, loss=float(losses[np.isfinite(losses)].mean()))
        clock(done, self.schedule.steps, f", loss {losses[-1]:.4f}")
        in_a_row = int(state.skipped_in_a_row)
        if in_a_row >= _PATIENCE:
            raise UserError(
                f"The last {in_a_row} steps, up to step {done}, diverged: no gradient was finite. "
                f"The checkpoint before stays. {self.advice}"
            )
        _, checkpoint_every, evaluate_every = self.schedule
        is_last = done == self.schedule.steps
        if self.history and self.measure and (is_last or done % evaluate_every == 0):
            figures = self.measure(devices.fetch(state.learned), done)
            if figures:
                self.history.add(step=done, **figures)
        if is_last or done % checkpoint_every == 0:
            self._save(state, ledger)
        return state

    def _save(self, state: LoopState, ledger: Ledger | None) -> None:
        kept = devices.fetch(state)
        if hosts.leads():
            booked = {} if ledger is None else {"ledger": ledger.to_dict()}
            metadata = {"identity": self.identity, **booked}
            checkpoint.save(self.checkpoints, int(kept.step), kept, metadata=metadata)


def _held_back() -> AbstractContextManager[None]:
    """Holds signals back where this process can end by itself, at a step of its own choice."""
    return interrupts.held_back() if jax.process_count() == 1 else nullcontext()
