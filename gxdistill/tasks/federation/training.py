"""The trainings that a simulation sets side by side, each a loop of steps or rounds."""

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from gxdistill.federated import aggregation, gradients, local, masked, rounds
from gxdistill.federated.adaptive import AdaptiveBound
from gxdistill.federated.aggregation import SITE, RobustMean, SumSites
from gxdistill.federated.local import LocalTraining
from gxdistill.privacy.clipping import clip_by_norm
from gxdistill.privacy.sampling import PatientSampler
from gxdistill.pytrees import Batch, Network, Params
from gxdistill.runtime.console import Log
from gxdistill.segmentation.losses import deep_loss
from gxdistill.tasks.federation import hospitals
from gxdistill.tasks.federation.hospitals import Feed
from gxdistill.training import steps
from gxdistill.training.steps import Loop

Schedule = Callable[[jax.Array], jax.Array]

OPTIMIZERS: dict[str, Callable[[float | Schedule], optax.GradientTransformation]] = {
    "sgd": optax.sgd,
    "momentum": partial(optax.sgd, momentum=0.9),
    "adam": optax.adam,
}
SCHEDULES: dict[str, Callable[[int], Schedule]] = {
    "constant": lambda _: lambda _: jnp.ones(()),
    "cosine": lambda count: lambda step: 0.5 * (1 + jnp.cos(jnp.pi * step / count)),
}


@dataclasses.dataclass(frozen=True)
class Sites:
    """What a federation knows of its sites without looking at their patients.

    Attributes:
      count: n.
      weights: in the mean, `[n]`.
      most_patients: of a site, at most.
      patients: of all sites.
    """

    count: int
    weights: np.ndarray
    most_patients: int
    patients: int


def network_loss(network: Network, over: str) -> Callable[[Params, Batch], jax.Array]:
    """Builds the loss of a batch of segmented crops, `(params, batch) -> scalar`.

    Args:
      network: of pixels.
      over: see `segmentation.losses.soft_dice`.
    """
    assert network.apply_levels
    levels = network.apply_levels

    def loss(params: Params, batch: Batch) -> jax.Array:
        return deep_loss(levels(params, batch.images), batch.targets, over=over)

    return loss


def sum_of(settings: ConfigDict, sites: int, log: Log) -> SumSites:
    """Chooses how updates are added up: masked, over the devices, or in sequence."""
    if settings.secure:
        return masked.masked(settings.secure_bound, settings.threshold or sites, log)
    devices = jax.devices()
    if len(devices) > 1 and sites % len(devices) == 0:
        axes = (jax.sharding.AxisType.Auto,)
        return aggregation.over_mesh(jax.make_mesh((len(devices),), (SITE,), axes))
    return aggregation.in_sequence


def central(config: ConfigDict, network: Network, count: int) -> Loop:
    """Builds the training in one place, by the optimiser of a site, for `count` steps.

    Its batches are those of the first site of its feed.
    """
    settings = config.federation
    schedule = SCHEDULES[settings.schedule](count)
    optimizer = OPTIMIZERS[settings.optimizer](lambda step: settings.lr * schedule(step))
    value_and_gradient = jax.value_and_grad(network_loss(network, settings.dice_over))
    draw = partial(hospitals.draw, config=config)

    def gradient(params: Params, key: jax.Array, feed: Any) -> tuple[jax.Array, Params]:
        return value_and_gradient(params, draw(feed, jnp.int32(0), key))

    return steps.loop(gradient, optimizer)


def federated(
    config: ConfigDict, network: Network, sites: Sites, log: Log, *, protected: bool = False
) -> Loop:
    """Builds the rounds of sites that share weights.

    Args:
      config: of the job.
      network: what is trained.
      sites: who takes part.
      log: told of refused rounds.
      protected: puts noise on each site's update, as the settings `site` say.
    """
    settings = config.federation
    return rounds.federation(
        site_training(config, network),
        partial(hospitals.draw, config=config),
        sites.weights,
        server=aggregation.server_optimizer(settings.server, settings.server_lr),
        rate=SCHEDULES[settings.schedule](settings.rounds),
        participation=settings.participation,
        protection=protection(settings.site) if protected else None,
        sum_sites=sum_of(settings, sites.count, log),
        robust=robust_mean(settings),
    )


def site_training(config: ConfigDict, network: Network) -> LocalTraining:
    """Builds what a site does in a round."""
    settings = config.federation
    return local.local_training(
        local.mean_gradient(network_loss(network, settings.dice_over)),
        OPTIMIZERS[settings.optimizer](settings.lr),
        settings.local_steps,
        proximal=settings.proximal,
    )


def robust_mean(settings: ConfigDict) -> RobustMean | None:
    """Chooses the mean that replaces the weighted one; None keeps that."""
    return {
        "weighted": None,
        "trimmed": partial(aggregation.trimmed_mean, share=settings.trim),
        "median": aggregation.median,
    }[settings.mean]


def protection(settings: ConfigDict) -> rounds.Protection:
    """Makes the protection of a site's update, as the settings `site` say."""
    adaptive = AdaptiveBound(settings.quantile, settings.quantile_rate, settings.bit_noise)
    return rounds.Protection(settings.clip, settings.noise, adaptive if settings.adaptive else None)


def patient_sampler(settings: ConfigDict, sites: Sites) -> PatientSampler:
    """Makes the sampler of a site's patients; all sites have room for the most of any."""
    return PatientSampler(sites.most_patients, settings.patient.sampling)


def patient_level(
    config: ConfigDict, network: Network, sites: Sites, noise: float, log: Log
) -> Loop:
    """Builds the rounds of sites that share sums of their patients' clipped parts.

    A part is a patient's gradient, and a round a step of DP-SGD, Abadi et al. 2016,
    https://arxiv.org/abs/1607.00133, over the patients of all sites, whose noise the sites share.
    Or it is the weights' change, negated, in some steps on that patient alone, as of the users of
    McMahan et al. 2018, https://arxiv.org/abs/1710.06963: clipped and noised alike, it moves the
    weights further at the same price.

    Args:
      config: of the job.
      network: what is trained.
      sites: who takes part.
      noise: multiplier of the sum over all sites.
      log: told of refused rounds.
    """
    settings, patient = config.federation, config.federation.patient
    schedule = SCHEDULES[settings.schedule](patient.rounds)
    gradient = gradients.private_gradient(
        _patients_sum(config, network, patient_sampler(settings, sites)),
        sites.count,
        noise=noise,
        bound=patient.clip,
        expected=patient.sampling * sites.patients,
        honest=honest_sites(settings, sites.count),
        sum_sites=sum_of(settings, sites.count, log),
    )
    return steps.loop(gradient, optax.adam(lambda step: patient.lr * schedule(step)))


def honest_sites(settings: ConfigDict, sites: int) -> int:
    """Tells whose noise is counted on: as many as asked, else as must be left in a round."""
    return min(settings.patient.honest or settings.threshold or sites, sites)


def _patients_sum(
    config: ConfigDict, network: Network, sampler: PatientSampler
) -> gradients.SiteGradient:
    """Builds a site's sum of clipped parts over a Poisson sample of its patients."""
    clip = config.federation.patient.clip
    part_of = _part_of_patient(config, network)

    def of_site(
        params: Params, key: jax.Array, feed: Feed, site: jax.Array
    ) -> tuple[jax.Array, Params]:
        draw_key, crop_key = jax.random.split(key)
        chosen, drawn = sampler.draw(draw_key)
        present = drawn & (chosen < feed.patients[site])

        def clipped(i: jax.Array) -> tuple[jax.Array, Params]:
            draw = partial(hospitals.draw_of_patient, feed, site, chosen[i], config=config)
            loss, part = part_of(params, draw, jax.random.fold_in(crop_key, i))
            return loss, clip_by_norm(part, clip)

        zero = jnp.zeros(()), jax.tree.map(jnp.zeros_like, params)

        def add(total: tuple[jax.Array, Params], i: jax.Array) -> tuple[tuple, None]:
            part = jax.lax.cond(present[i], clipped, lambda _: zero, i)
            return jax.tree.map(jnp.add, total, part), None

        return jax.lax.scan(add, zero, jnp.arange(sampler.capacity))[0]

    return of_site


def _part_of_patient(
    config: ConfigDict, network: Network
) -> Callable[[Params, Callable[[jax.Array], Batch], jax.Array], tuple[jax.Array, Params]]:
    """Builds what a patient gives to a sum before it is clipped, and its loss."""
    settings, patient = config.federation, config.federation.patient
    loss_of = network_loss(network, settings.dice_over)
    if patient.steps == 1:
        value_and_gradient = jax.value_and_grad(loss_of)
        return lambda params, draw, key: value_and_gradient(params, draw(key))
    optimizer = OPTIMIZERS["momentum"](patient.steps_lr)
    train = local.local_training(local.mean_gradient(loss_of), optimizer, patient.steps)

    def part(
        params: Params, draw: Callable[[jax.Array], Batch], key: jax.Array
    ) -> tuple[jax.Array, Params]:
        change, loss = train(params, draw, key, jnp.ones(()))
        return loss, jax.tree.map(jnp.negative, change)

    return part


def upload_bytes(params: Params) -> int:
    """Counts the bytes of weights, which a site sends in a round."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))
