"""The recipe of a job, repeated on other patients: what its method makes of them."""

import dataclasses
import json
from functools import cached_property, partial

from gxdistill import package
from gxdistill.errors import UserError
from gxdistill.jobs.devices import Stepper
from gxdistill.jobs.job import Job
from gxdistill.jobs.loop import Run, Schedule
from gxdistill.package.seeds import Use
from gxdistill.privacy.features import Features
from gxdistill.pytrees import Distilled
from gxdistill.tasks.distillation import distilling, guards, method, private, releasing
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

    @cached_property
    def _features(self) -> Features:
        return releasing.make_features(self.job)

    @property
    def is_private(self) -> bool:
        """Whether it draws and counts patients itself, for a guarantee."""
        return guards.is_private(self.job.config)

    def check_made(self, manifest: package.Manifest) -> None:
        """Refuses a package that was made in another way, or of another number of patients.

        Raises:
          UserError: naming what differs.
        """
        if self.job.config.privacy.statistics.releases:
            raise UserError(
                "The package was made of releases of several hospitals: no shadow can be made of "
                "patients who are elsewhere. Audit the package that each made of its own release."
            )
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
        if (manifest.ledger is not None) != self.is_private:
            has, asks = ("no", "asks") if self.is_private else ("a", "does not ask")
            raise UserError(
                f"The package has {has} ledger, and the config {asks} for one "
                f"(privacy.mechanism is {self.job.config.privacy.mechanism!r}). Name the config "
                f"that it was made with."
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
        if guards.releases_statistics(job.config):
            job.log(what)
            return releasing.distilled(job, self._features)[0]
        learned = method.initial_learned(problem, settings)
        if not settings.outer_steps:
            return method.to_distilled(problem, settings, distilling.begin(job, learned))
        schedule = Schedule(settings.outer_steps, settings.checkpoint_every)
        run = partial(
            Run,
            what=what,
            schedule=schedule,
            checkpoints=job.workdir.checkpoints,
            log=job.log,
            begin=lambda state: dataclasses.replace(
                state, learned=distilling.begin(job, state.learned)
            ),
        )
        if self.is_private:
            # With noise of its own, and secret: who knew that of the package could take it off.
            steps, key = private.private_steps(job), private.secret_key()
            made_by = steps.after_training_of(problem.sharing)
            loop, state = method.build(problem, settings, job.log, made_by, key)
            stepper = steps.stepper(job, loop)
            state, _ = run(stepper=stepper, ledger=steps.ledger, book=steps.book).accounted(state)
        else:
            loop, stepper = self._program
            stepper = stepper.fed_by(problem.batches(settings.batch))
            state = run(stepper=stepper)(loop.init(learned, job.key(Use.LOOP)))
        return method.to_distilled(problem, settings, state.learned)
