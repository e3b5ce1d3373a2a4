"""The private meta-gradient: what one patient can change in it is bounded and drowned in noise."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gxdistill import _check
from gxdistill.distill.losses import real_loss
from gxdistill.distill.meta_gradient import MetaGradient, as_trained_on, weights_after
from gxdistill.distill.truncation import InnerLoop, full
from gxdistill.distill.views import as_learned
from gxdistill.errors import UserError
from gxdistill.privacy import clipping
from gxdistill.privacy.ledger import add_noise
from gxdistill.privacy.sampling import PatientBatch
from gxdistill.pytrees import Distilled, Network, Params
from gxdistill.runtime import platform

PLACES = ("weights", "distilled")

_FULL = full()
_NOISE = 2**32 - 5  # Folded into a step's key, beside those of `distill.meta_gradient`.


def after_training(
    network: Network,
    *,
    rule: str,
    clip: float,
    noise_multiplier: float,
    divisor: float,
    place: str = "weights",
    train: InnerLoop = _FULL,
    view: Callable[[Any, jax.Array], Distilled] = as_learned,
    augmentations: Sequence[str] = (),
    known_key: jax.Array | None = None,
    networks: int = 1,
    at_once: int | None = None,
    patients_at_once: int | None = None,
    site: jax.Array | None = None,
) -> MetaGradient:
    """Builds `distill.meta_gradient.after_training`, clipped by the patient and noised.

    Of the R networks together, a patient's contribution is the gradient of the mean loss on that
    patient's patches, clipped to an L2 norm; the sum gets Gaussian noise, as in Abadi et al. 2016,
    https://arxiv.org/abs/1607.00133. Where it is clipped makes two mechanisms, of one sensitivity:

    - "weights": the gradient by the R trained weights is clipped and noised; what follows, one
      pull-back through the training on distilled data, sees no patient: it is post-processing.
    - "distilled": each patient's gradient is pulled back to what is learned, clipped and noised
      there. As many pull-backs as patients.

    Args:
      network: as of the plain one, like `rule`, `train`, `view`, `augmentations`, `known_key` and
        `networks`.
      rule: how labels are read.
      clip: C, largest norm of a patient's contribution.
      noise_multiplier: standard deviation of the noise over C; 0 adds none, and promises nothing.
      divisor: constant that the sum is divided by, as the expected number of patients: their true
        number would tell who is there.
      place: one of `PLACES`.
      train: how weights are trained.
      view: what they are trained on.
      augmentations: of real and distilled images.
      known_key: draws the one known theta_0.
      networks: R.
      at_once: networks that are trained side by side, by `vmap`; None takes all on an accelerator
        and one after another on a CPU.
      patients_at_once: likewise of the patients.
      site: number of the site whose noise this is, where several are told the same key and add
        noise of their own; None where there is one.

    Returns:
      `(learned, key, batch) -> (loss, grads)`, where the batch is a `PatientBatch` and the loss the
      mean over its patients: it is not noised, and must not leave the hospital. The key is secret.

    Raises:
      ValueError: a number is out of range.

    Example:
      step = after_training(
          network, rule="raw", clip=1.0, noise_multiplier=calibrate(8.0, 1e-3, count=300, ...),
          divisor=sampler.patients * sampler.probability,
      )
    """
    _check.one_of("place", place, PLACES)
    _check.positive(clip=clip, divisor=divisor, networks=networks)
    if not noise_multiplier >= 0:
        raise ValueError(f"`noise_multiplier` is {noise_multiplier}; it must not be negative.")
    if known_key is not None and networks != 1:
        raise ValueError(f"`networks` is {networks} with a known init. Pass 1, or a random init.")
    on_patient = _patient_gradient(network, augmentations, at_once)
    trained = weights_after(
        network,
        rule=rule,
        train=train,
        view=view,
        augmentations=augmentations,
        known_key=known_key,
    )

    def noisy(key: jax.Array, total: Params) -> Params:
        scale = noise_multiplier * clipping.sensitivity(clip)
        noise_key = jax.random.fold_in(key, _NOISE)
        noise_key = noise_key if site is None else jax.random.fold_in(noise_key, site)
        total = add_noise(noise_key, total, scale)
        return jax.tree.map(lambda leaf: leaf / divisor, total)

    def meta_gradient(learned: Any, key: jax.Array, batch: Any) -> tuple[jax.Array, Any]:
        _check_sample(batch)
        keys = key[None] if networks == 1 else jax.random.split(key, networks)
        weights, back = jax.vjp(
            lambda learned: _each(lambda key: trained(learned, key), keys, at_once), learned
        )
        pull_back = (lambda g: g) if place == "weights" else (lambda g: back(g)[0])

        def contribution(images: jax.Array, targets: jax.Array) -> tuple[jax.Array, Any]:
            loss, grads = on_patient(weights, keys, images, targets)
            return loss, pull_back(grads)

        loss, total = _sum_over_patients(contribution, batch, clip, patients_at_once)
        released = noisy(key, total)
        return loss, back(released)[0] if place == "weights" else released

    return meta_gradient


def _patient_gradient(
    network: Network, augmentations: Sequence[str], at_once: int | None
) -> Callable[..., Any]:
    """Builds `(weights [R, ...], keys [R], images, targets) -> (loss, gradient by all weights)`."""
    on_real = real_loss(network)

    def on_patient(
        weights: Params, keys: jax.Array, images: jax.Array, targets: jax.Array
    ) -> tuple[jax.Array, Params]:
        def on_network(given: tuple[Params, jax.Array]) -> tuple[jax.Array, Params]:
            params, key = given
            seen = as_trained_on(images, key, augmentations)
            classes = jax.eval_shape(network.apply, params, seen).shape[-1]
            return jax.value_and_grad(on_real)(params, seen, jax.nn.one_hot(targets, classes))

        losses, grads = _each(on_network, (weights, keys), at_once)
        # The mean over the networks is clipped, and not each network's part.
        return losses.mean(), jax.tree.map(lambda g: g / len(keys), grads)

    return on_patient


def _check_sample(batch: Any) -> None:
    if not isinstance(batch, PatientBatch):
        raise UserError(
            f"A private step takes a Poisson sample of patients, a PatientBatch, and not a "
            f"{type(batch).__name__}: of a balanced batch no guarantee is known. Draw it by "
            f"privacy.sampling."
        )


def _sum_over_patients(
    contribution: Callable[[jax.Array, jax.Array], tuple[jax.Array, Any]],
    batch: PatientBatch,
    clip: float,
    at_once: int | None,
) -> tuple[jax.Array, Any]:
    """Adds up clipped contributions, a few patients at a time; who was not drawn costs no time.

    Returns:
      The mean loss over the patients whose loss is finite, 0 where there is none; and the sum.
    """
    patients = len(batch.present)
    size = min(_together(at_once, patients), patients)
    fill = -patients % size
    padded = jax.tree.map(lambda x: jnp.pad(x, [(0, fill)] + [(0, 0)] * (x.ndim - 1)), batch)

    def add(i: jax.Array, sums: tuple) -> tuple:
        rows = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, i * size, size), padded)
        if size == 1:
            parts = jax.tree.map(lambda x: x[None], contribution(rows.images[0], rows.targets[0]))
        else:
            parts = jax.vmap(contribution)(rows.images, rows.targets)
        losses, grads = parts
        counts = rows.counted & jnp.isfinite(losses)
        total = clipping.clipped_sum(grads, clip, rows.counted)
        part = jnp.where(counts, losses, 0).sum(), counts.sum(), total
        return jax.tree.map(jnp.add, sums, part)

    shapes = jax.eval_shape(lambda: add(jnp.int32(0), (0.0, 0, _zeros(contribution, batch))))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    chunks = (batch.present.sum() + size - 1) // size
    loss, count, total = jax.lax.fori_loop(0, chunks, add, zeros)
    return loss / jnp.maximum(count, 1), total


def _zeros(contribution: Callable, batch: PatientBatch) -> Any:
    _, grads = jax.eval_shape(contribution, batch.images[0], batch.targets[0])
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), grads)


def _each(function: Callable, given: Any, at_once: int | None) -> Any:
    """Maps over networks, so many side by side as a device takes."""
    together = _together(at_once, len(jax.tree.leaves(given)[0]))
    return jax.lax.map(function, given, batch_size=None if together == 1 else together)


def _together(at_once: int | None, count: int) -> int:
    return at_once or (1 if platform.platform() == "cpu" else count)
