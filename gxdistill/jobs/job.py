"""A config with the objects made from it: what the tasks are composed around."""

import dataclasses
import json
from functools import cached_property

import jax
import ml_collections

from gxdistill.jobs import checks, devices
from gxdistill.jobs.cohorts import Cohorts
from gxdistill.jobs.events import EventFolder
from gxdistill.jobs.history import History
from gxdistill.jobs.problem import Problem
from gxdistill.jobs.workdir import Workdir
from gxdistill.models.cached import cached_network
from gxdistill.package import seeds
from gxdistill.package.seeds import Use
from gxdistill.pytrees import Metadata
from gxdistill.runtime.console import Log

# What every result depends on; a checkpoint of other settings is not resumed.
_IDENTITY = ("seed", "data", "sampling", "patch", "network")


@dataclasses.dataclass(frozen=True)
class Job:
    """A config with its data, its problem and its working folder.

    Attributes:
      config: the settings.
      workdir: where the job keeps what it makes.
      log: told the progress.
      given: a cohort to learn from in place of the one that the settings name.

    Raises:
      UserError: a setting is missing, unknown, or not what it may be.
    """

    config: ml_collections.ConfigDict
    workdir: Workdir
    log: Log
    given: Cohorts | None = None

    def __post_init__(self) -> None:
        """Refuses settings before any work is done."""
        checks.check(self.config)

    @cached_property
    def cohorts(self) -> Cohorts:
        """The data side."""
        return self.given or Cohorts(self.config, self.log)

    @cached_property
    def problem(self) -> Problem:
        """What the method is told of the data.

        Raises:
          UserError: the cohort cannot be used, or the network does not fit its patches.
        """
        data, network = self.cohorts, self.config.network
        checks.check_problem(self.config, data.shape, data.classes)
        return Problem(
            shape=data.shape,
            classes=data.classes,
            network=cached_network(network.name, network.options, data.shape, data.classes),
            seed=self.config.seed,
            batches=data.batches,
            sample=data.sample,
            devices=devices.all_devices(),
            card_memory=devices.card_memory(),
        )

    @cached_property
    def history(self) -> History:
        """What is seen along the way; in `events`, too, where TensorBoard is to show it."""
        if self.config.log == "none":
            return self.workdir.history
        return History(self.workdir.history.path, EventFolder(self.workdir / "events"))

    def key(self, use: Use) -> jax.Array:
        """Derives the typed PRNG key of one use of randomness."""
        return seeds.key(self.config.seed, use)

    def identity(self, *sections: str) -> Metadata:
        """Tells all that a result depends on, as JSON can hold it.

        Args:
          *sections: of the config that the task adds to those which every task shares.

        Returns:
          The settings, and a digest of the cohort.
        """
        chosen = {name: self.config[name] for name in (*_IDENTITY, *sections)}
        settings = json.loads(ml_collections.ConfigDict(chosen).to_json_best_effort())
        # The feed that was taken, not the rule: another machine may choose otherwise.
        settings["data"] |= {"feed": "streaming" if self.cohorts.streams else "resident"}
        del settings["data"]["resident_mb"]
        return {**settings, "cohort": self.cohorts.digest}
