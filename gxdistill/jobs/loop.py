"""One resumable loop for all training: whatever is learned, by whatever gradient."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from gxdistill.errors import UserError
from gxdistill.jobs import devices
from gxdistill.jobs.devices import Stepper
from gxdistill.jobs.history import History
from gxdistill.pytrees import Params
from gxdistill.runtime import hosts, interrupts
from gxdistill.runtime.console import Log, Progress
from gxdistill.storage import checkpoint
from gxdistill.training.steps import LoopState

_PATIENCE = 20  # Steps that may diverge in a row.

Measure = Callable[[Params, int], dict[str, float]]


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
    """

    what: str
    stepper: Stepper
    schedule: Schedule
    checkpoints: Path
    log: Log
    history: History | None = None
    identity: str = ""
    begin: Callable[[LoopState], LoopState] = lambda state: state
    measure: Measure | None = None
    advice: str = "Lower the learning rate, and start in another --workdir."

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
        state = devices.replicate(self._resumed(state), self.stepper.mesh)
        first = int(state.step)
        if self.history:
            self.history.cut(first)
        feeds = self.stepper.stream(state.key, first)
        clock = Progress(self.log, self.what, first)
        if first < self.schedule.steps:  # What is compiled is compiled before signals wait.
            state = self._advanced(state, feeds, clock)
        with _held_back():
            while (done := int(state.step)) < self.schedule.steps:
                try:
                    interrupts.check()
                except KeyboardInterrupt:
                    self._save(state)
                    self.log(f"{self.what}: stopped at step {done}, with a checkpoint")
                    raise
                state = self._advanced(state, feeds, clock)
        if int(state.skipped) == self.schedule.steps > 0:
            raise UserError(f"Each of the {self.schedule.steps} steps diverged. {self.advice}")
        return devices.fetch(state)

    def _resumed(self, state: LoopState) -> LoopState:
        """Returns the state of the first process's newest checkpoint, or the given first state."""
        restored = checkpoint.restore(self.checkpoints, state)
        if restored is None or restored[2].get("identity", "") != self.identity:
            state = self.begin(state)
        else:
            step, state, _ = restored
            is_done = step == self.schedule.steps
            self.log(f"{self.what}: {'done already' if is_done else f'resuming at step {step}'}")
        key = jax.random.key_data(state.key)
        state = hosts.from_first(dataclasses.replace(state, key=key))
        return dataclasses.replace(state, key=jax.random.wrap_key_data(state.key))

    def _advanced(self, state: LoopState, feeds: Iterator[Any], clock: Progress) -> LoopState:
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
            self._save(state)
        return state

    def _save(self, state: LoopState) -> None:
        kept = devices.fetch(state)
        if hosts.leads():
            metadata = {"identity": self.identity}
            checkpoint.save(self.checkpoints, int(kept.step), kept, metadata=metadata)


def _held_back() -> AbstractContextManager[None]:
    """Holds signals back where this process can end by itself, at a step of its own choice."""
    return interrupts.held_back() if jax.process_count() == 1 else nullcontext()
