"""Distilled images that match released statistics: post-processing, which no privacy is lost by.

Images are drawn from the Gaussians that the released moments of each class tell, and then moved so
that their features have the released moments, too: as distribution matching, Zhao & Bilen 2023,
https://arxiv.org/abs/2110.04181, of means and second moments that were released once.
"""

import jax
import jax.numpy as jnp
import optax

from gxdistill.distill.outer import keep_between
from gxdistill.privacy.features import Features
from gxdistill.privacy.statistics import Released, positive, weighted
from gxdistill.training.steps import Loop, loop

_BLOCK = 500  # Images of which features are computed at once.
_LEAST_COUNT = 1.0  # Patients of a class that noise may leave.


def matcher(features: Features, classes: jax.Array, *, rate: float, steps: int) -> Loop:
    """Builds the loop that moves images, from 0 to 1, nearer to released statistics.

    Its batch is the `Released`; each step looks at all images. Adam, its rate falling by a cosine;
    images stay between 0 and 1.

    Args:
      features: that the statistics are of.
      classes: `[N]` integer, of the images.
      rate: first learning rate, in units of the images.
      steps: number of steps.
    """

    def gradient(
        images: jax.Array, _: jax.Array, released: Released
    ) -> tuple[jax.Array, jax.Array]:
        return jax.value_and_grad(lambda images: distance(features, released, images, classes))(
            images
        )

    optimizer = optax.adam(optax.cosine_decay_schedule(rate, max(steps, 1)))
    projected = optax.chain(optimizer, keep_between(0, 1))
    return loop(gradient, projected)  # type: ignore[arg-type]  # Its batch is no `Batch`.


def draw(
    key: jax.Array,
    features: Features,
    released: Released,
    classes: jax.Array,
    *,
    detail: float = 0.0,
) -> jax.Array:
    """Draws images of given classes, each from the Gaussian that its class's statistics tell.

    Directions in which a class varies no more than noise does vary as the prior's images do; what
    is known of them is how much they vary together. What coordinates do not hold, fine structure,
    is drawn without a patient: networks that never saw any would take that of real images for
    anything.

    Args:
      key: typed PRNG key.
      features: that the statistics are of.
      released: statistics.
      classes: `[N]` integer.
      detail: how much fine structure images get, times that of the prior, which the brightness of
        another image of the prior makes stronger in some places; 0 is none.

    Returns:
      Images, `[N, H, W, C]`, from 0 to 1.
    """
    statistics, deviations = released.statistics, released.deviations
    counts = jnp.maximum(statistics.counts, _LEAST_COUNT)[:, None]
    means = statistics.pixel_sums / counts
    spread = statistics.pixel_second / counts[..., None] - means[:, :, None] * means[:, None]
    # Noise alone has eigenvalues up to this; a larger one is t + edge^2 / 4t of a true t, Capitaine
    # et al. 2009, https://doi.org/10.1214/08-AOP394.
    edge = deviations["pixel_second"] / counts * (2 * spread.shape[-1]) ** 0.5
    values, vectors = jnp.linalg.eigh(spread)
    root = jnp.sqrt(jnp.maximum(values**2 - edge**2, 0))
    kept = jnp.where(values > edge, (values + root) / 2, 0)
    normal, other = jax.random.normal(key, (2, len(classes), spread.shape[-1]))
    moved = jnp.einsum("nij,nj->ni", vectors[classes], jnp.sqrt(kept)[classes] * normal)
    # Beyond, directions vary as the prior's do, and together as much as is left.
    beyond = jnp.einsum("kij,kj,klj->kil", vectors, jnp.float32(kept == 0), vectors)
    variances = features.pixels.variances
    left = jnp.maximum(jnp.trace(spread, axis1=1, axis2=2) - kept.sum(axis=1), 0)
    left /= jnp.einsum("kii,i->k", beyond, variances) + 1e-12
    rest = jnp.sqrt(left[classes, None] * variances) * other
    moved += jnp.einsum("nij,nj->ni", beyond[classes], rest)
    images = features.pixels.back(means[classes] + moved)
    if detail:
        fine, strength = (
            features.prior(jax.random.fold_in(key, i), len(classes), features.pixels.shape)
            for i in (1, 2)
        )
        images += 2 * detail * strength * features.pixels.rest(fine)
    return jnp.clip(images, 0, 1)


def distance(
    features: Features, released: Released, images: jax.Array, classes: jax.Array
) -> jax.Array:
    """Measures how far the moments of images are from the released ones.

    The squared distances of means by class, and of second moments, are added up, each over the
    square of the released one, so that all parts count alike.

    Args:
      features: that the statistics are of.
      released: statistics.
      images: `[N, H, W, C]`, from 0 to 1.
      classes: `[N]` integer.

    Returns:
      Scalar; 0 where all moments are the same.
    """
    target, count = released.statistics, released.statistics.counts.shape[0]
    vectors = _vectors(features, images)
    ours = weighted(vectors, jax.nn.one_hot(classes, count))
    parts = [
        _relative(ours.second / len(images), positive(target.second) / _total(target.counts)),
        _relative(_means(ours.sums, ours.counts), _means(target.sums, target.counts)),
        _relative(_means(ours.pixel_sums, ours.counts), _means(target.pixel_sums, target.counts)),
        _relative(
            ours.pixel_second.sum(axis=0) / len(images),
            positive(target.pixel_second.sum(axis=0)) / _total(target.counts),
        ),
    ]
    return jnp.stack(parts).sum()


def _vectors(features: Features, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Describes images, some at a time: the gradient would keep all that is between."""
    size = min(_BLOCK, len(images))
    short = -len(images) % size
    padded = jnp.pad(images, ((0, short), (0, 0), (0, 0), (0, 0)))
    blocks = padded.reshape(-1, size, *images.shape[1:])

    @jax.checkpoint
    def of_block(block: jax.Array) -> tuple[jax.Array, jax.Array]:
        return features.describe(block), features.pixels(block)

    described, coordinates = jax.lax.map(of_block, blocks)
    return tuple(v.reshape(-1, v.shape[-1])[: len(images)] for v in (described, coordinates))


def _total(counts: jax.Array) -> jax.Array:
    return jnp.maximum(counts.sum(), _LEAST_COUNT)


def _means(sums: jax.Array, counts: jax.Array) -> jax.Array:
    return sums / jnp.maximum(counts, _LEAST_COUNT)[:, None]


def _relative(ours: jax.Array, target: jax.Array) -> jax.Array:
    return jnp.square(ours - target).sum() / jnp.square(target).sum()
