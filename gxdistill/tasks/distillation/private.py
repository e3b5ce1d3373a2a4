"""Private distillation: what a budget allows, refuses and bills."""

import dataclasses
import os
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from gxdistill import package
from gxdistill.distill.meta_gradient import MetaGradient
from gxdistill.errors import UserError
from gxdistill.evaluation import decision, patches
from gxdistill.jobs.devices import Stepper
from gxdistill.jobs.job import Job
from gxdistill.jobs.problem import Sharing
from gxdistill.privacy import meta_gradient, threshold
from gxdistill.privacy.clipping import sensitivity
from gxdistill.privacy.events import Event, sampled_gaussian
from gxdistill.privacy.ledger import BudgetError, Ledger, calibrate
from gxdistill.privacy.sampling import PatientSampler
from gxdistill.pytrees import Params
from gxdistill.tasks.distillation import guards
from gxdistill.tasks.distillation.assessing import decides_images
from gxdistill.training.steps import Loop

LEDGER = "ledger.json"
PROMISE = (
    "The ledger of this package states what is guaranteed, and to whom. It covers what this "
    "package was made by, and not what else was or will be published of the same patients."
)
# What depends on the patients and is released without noise, whatever the method.
UNCOVERED = ("the choice of the settings", "how files were read")
_BY_SAMPLING = "the number of training patients, by the sampling probability"
_WHAT = "meta-gradient"


class Account(NamedTuple):
    """What a private job has released, and by which key.

    Attributes:
      ledger: of its releases.
      key: typed PRNG key, secret; `ledger.release_key` derives that of the next release.
    """

    ledger: Ledger
    key: jax.Array


@dataclasses.dataclass(frozen=True)
class PrivateSteps:
    """Private outer steps of a job.

    Attributes:
      sampler: of the training patients.
      noise: multiplier of a step's noise.
      settings: the section `privacy`.
      ledger: before the first step.
    """

    sampler: PatientSampler
    noise: float
    settings: ConfigDict
    ledger: Ledger

    def after_training_of(self, sharing: Sharing | None) -> Callable[..., MetaGradient]:
        """Returns what makes the meta-gradient, see `method.build`; of sites that share it out."""
        alone = partial(
            meta_gradient.after_training,
            clip=self.settings.clip,
            noise_multiplier=self.noise,
            divisor=float(self.settings.patients_per_step),
            place=self.settings.clip_at,
        )
        return sharing.private(alone, self.noise) if sharing else alone

    def stepper(self, job: Job, loop: Loop, sharing: Sharing | None = None) -> Stepper:
        """Builds what takes the steps; of sites that share it, each draws its own patients."""
        source = job.cohorts.patient_batches(self.sampler, self.settings.patches_per_patient)
        source = sharing.patients(source) if sharing else source
        return Stepper(loop, source, job.config.distill.steps_per_call)

    def book(self, ledger: Ledger, key: jax.Array, first: int, count: int) -> Ledger:
        """Books steps before they are taken, see `jobs.loop.Run`."""
        draws = self.sampler.draws(key, first, count)
        event = sampled_gaussian(
            draws,
            _WHAT,
            sensitivity=sensitivity(self.settings.clip),
            noise_multiplier=self.noise,
        )
        return ledger.book(event, draws)


def secret_key() -> jax.Array:
    """Draws a key that nobody can guess, from the system's own entropy.

    The seed of a job is told in its package: who knows it could take the noise off again.
    """
    bits = np.frombuffer(os.urandom(8), np.uint32)
    return jax.random.wrap_key_data(jnp.asarray(bits), impl="threefry2x32")


def first_ledger(config: ConfigDict) -> Ledger:
    """Opens the ledger of a job."""
    budget = config.privacy
    sampled = (_BY_SAMPLING,) if budget.mechanism == "meta_gradient" else ()
    return Ledger(delta=budget.delta, budget=budget.epsilon, uncovered=(*sampled, *UNCOVERED))


def _threshold_event(job: Job) -> tuple[Event, ...]:
    """Returns what the threshold will cost, where one is released."""
    noise = job.config.privacy.threshold_noise
    # Statistics, once released, give a threshold of their own.
    released = guards.releases_statistics(job.config)
    if not noise or released or not decides_images(job.cohorts.train):
        return ()
    return (Event(threshold.WHAT, "gaussian", sensitivity(1.0), noise),)


def release_threshold(
    job: Job, networks: Params, ledger: Ledger, key: jax.Array
) -> tuple[package.Decision | None, Ledger]:
    """Chooses the threshold of whole images on all training patients, with noise, and books it.

    Args:
      job: whose patients.
      networks: trained weights of R networks, each leaf with a leading axis R.
      ledger: what was released before.
      key: of the run, secret.

    Returns:
      The manifest's `decision`, and the ledger; None where no threshold is asked for, or the budget
      does not allow it.
    """
    if not _threshold_event(job):
        return None, ledger
    train, rule = job.cohorts.train, job.config.decision.rule  # One that has no weights.
    probabilities = patches.predict(job.problem.network, networks, train, job.cohorts.patch_grid)
    (scores,) = patches.joint_scores(probabilities, partial(decision.score, rule))
    histograms = threshold.patient_histograms(scores, train.labels, train.patients)
    noise = job.config.privacy.threshold_noise
    try:
        counts, ledger = threshold.release_histogram(key, histograms, noise, ledger)
    except BudgetError as error:
        job.log(f"warning: no threshold is released: {error}")
        return None, ledger
    tau, share = threshold.choose(counts)
    return package.Decision(rule, (), tau, share, len(probabilities)), ledger


def private_steps(job: Job) -> PrivateSteps:
    """Calibrates the noise of a job's outer steps, so that all releases fit into its budget.

    Args:
      job: with the section `privacy`.

    Raises:
      UserError: no noise suffices, or several devices would share the steps.
    """
    settings, count = job.config.privacy, job.config.distill.outer_steps
    if jax.process_count() > 1:
        raise UserError("Private steps are taken by one process. Start it without --processes.")
    patients = len(set(job.cohorts.train.patients.tolist()))
    if settings.delta * patients >= 1:
        job.log(
            f"warning: privacy.delta is {settings.delta:g}, which allows to publish one of "
            f"{patients} patients outright. Set it well below {1 / patients:.2g}."
        )
    sampler = PatientSampler(patients, min(1.0, settings.patients_per_step / patients))
    ledger = first_ledger(job.config)
    noise = settings.noise
    if not noise:
        job.log(f"searching the noise of {count} steps for epsilon {settings.epsilon:g}")
        noise = calibrate(
            settings.epsilon,
            settings.delta,
            mechanism="sampled_gaussian",
            count=count,
            sampling_probability=sampler.probability,
            beside=_threshold_event(job),
        )
    job.log(
        f"private steps: noise {noise:.4g} x clip {settings.clip:g}, each patient of {patients} "
        f"with probability {sampler.probability:.3g}"
    )
    return PrivateSteps(sampler, noise, settings, ledger)
