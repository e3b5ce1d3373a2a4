"""The recipe of a job, repeated on other patients: what its method makes of them."""

import dataclasses
import json
from functools import cached_property

from gxdistill import package
from gxdistill.errors import UserError
from gxdistill.jobs.devices import Stepper
from gxdistill.jobs.job import Job
from gxdistill.jobs.loop import Run, Schedule
from gxdistill.package.seeds import Use
from gxdistill.pytrees import Distilled
from gxdistill.tasks.distillation import distilling, method
from gxdistill.training.steps import Loop


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What a job does with its patients, by one program for all who take their place.

    Attributes:
      job: whose method it is.
    """

    job: Job

    @cached_property
    def _program(self) -> tuple[Loop, Stepper]:
        settings = self.job.config.distill
        loop, _ = method.build(self.job.problem, settings, self.job.log)
        return loop, method.stepper(self.job.problem, settings, loop)

    def check_made(self, manifest: package.Manifest) -> None:
        """Refuses a package that was made in another way, or of another number of patients.

        Raises:
          UserError: naming what differs.
        """
        ours = distilling.identity(self.job)["distill"]
        theirs = json.loads(json.dumps(manifest.distillation.settings))
        changed = sorted(k for k in ours.keys() | theirs.keys() if ours.get(k) != theirs.get(k))
        if changed:
            what = ", ".join(
                f"{k} (there {theirs.get(k)!r}, here {ours.get(k)!r})" for k in changed
            )
            raise UserError(
                f"The package was made with other settings of distill: {what[:300]}. Name the "
                f"config that it was made with."
            )
        for name, there, here in (
            ("patch", manifest.patch, self.job.cohorts.geometry),
            ("classes", manifest.class_names, self.job.cohorts.source.cohort.class_names),
        ):
            if there != here:
                raise UserError(
                    f"The package was made with other {name}: there {there}, here {here}. Name "
                    f"the config that it was made with."
                )

    def __call__(self, job: Job, what: str) -> Distilled:
        """Makes distilled data of a job's patients, or goes on with it.

        Args:
          job: of the same settings, with a cohort and a working folder of its own, and patches of
            the same shapes as `self.job`'s.
          what: is done, in words for people.

        Raises:
          UserError: the run diverged, or the folder is of another run.
        """
        settings, problem = job.config.distill, job.problem
        job.workdir.check_same(distilling.identity(job))
        learned = method.initial_learned(problem, settings)
        if not settings.outer_steps:
            return method.to_distilled(problem, settings, distilling.begin(job, learned))
        loop, stepper = self._program
        run = Run(
            what=what,
            stepper=stepper.fed_by(problem.batches(settings.batch)),
            schedule=Schedule(settings.outer_steps, settings.checkpoint_every),
            checkpoints=job.workdir.checkpoints,
            log=job.log,
            begin=lambda state: dataclasses.replace(
                state, learned=distilling.begin(job, state.learned)
            ),
        )
        state = run(loop.init(learned, job.key(Use.LOOP)))
        return method.to_distilled(problem, settings, state.learned)
