"""Sites that learn one distilled set together: each sends a meta-gradient, and none a network.

The set, its labels and its rates are what travels, both ways; what a patient shows stays at the
site. `problem_of` makes of a job the problem that `tasks.distillation` learns in place of its own.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from itertools import repeat
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from gxdistill import storage
from gxdistill.data.batches import resident
from gxdistill.distill.meta_gradient import MetaGradient
from gxdistill.errors import UserError
from gxdistill.federated import gradients, masked
from gxdistill.federated.aggregation import SumSites, in_sequence
from gxdistill.jobs import settings
from gxdistill.jobs.job import Job
from gxdistill.jobs.problem import BatchSource, Problem, Sharing
from gxdistill.jobs.settings import Table, choice, integer, number, switch
from gxdistill.package.seeds import Use
from gxdistill.privacy.sampling import PatientBatch, PatientFeed
from gxdistill.pytrees import Batch, Cohort, Metadata, Network, Params
from gxdistill.tasks.federation import feeds
from gxdistill.tasks.federation.feeds import SharedFeed

SETTINGS = settings.add_task(
    Table(
        {
            "sharing.weights": choice(
                "patients",
                ("patients", "equal"),
                "What a site weighs in the mean of the meta-gradients.",
            ),
            "sharing.secure": switch(
                False, "Masks the meta-gradients, so that the server sees their sum alone."
            ),
            "sharing.secure_bound": number(
                1000.0, 1e-3, 1e6, "Largest number in a meta-gradient that is masked."
            ),
            "sharing.threshold": integer(
                0, 0, 10**6, "Sites that must be left at the end of a masked step; 0 is all."
            ),
            "sharing.honest": integer(
                0,
                0,
                10**6,
                "Sites whose share of a private set's noise is counted on; 0 is the threshold.",
            ),
        },
        {"sharing": "How sites learn one distilled set together."},
    )
)


def add_settings(config: ml_collections.ConfigDict) -> None:
    """Adds the section `sharing` to a config of distillation."""
    with config.unlocked():
        config.sharing = settings.to_config(SETTINGS).sharing


def problem_of(job: Job) -> Problem:
    """Makes the problem of a job one that its sites share.

    Raises:
      UserError: the cohort has one site, or a setting does not fit it.
    """
    chosen, data = job.config.sharing, job.cohorts
    names = feeds.site_names(data.train)
    if data.streams:
        raise UserError(
            "data.feed is streaming; sites that share a distilled set keep their images on the "
            "device. Set data.feed to 'resident', or raise data.resident_mb."
        )
    check_threshold("sharing", chosen, len(names))
    images = next(data.batches(1).stream()).images  # Those that the job has on the device.
    feed = feeds.shared_feed(images, data.train, data.tables["train"], names, job.config.sampling)
    size, normalise = job.config.patch.size, data.normalisation
    add_up = _sum_of(job, len(names))

    def draw_at(feed: SharedFeed, site: jax.Array, key: jax.Array, count: int) -> Batch:
        site_key = jax.random.fold_in(key, site)
        pixels = feeds.draw_pixels(feed, site, site_key, size=size, batch=count)
        return resident.of_pixels(normalise, pixels, site_key)

    def batches(count: int) -> BatchSource:
        # Drawn where a site's meta-gradient is taken, so that there is one site's batch at a time.
        def draw(feed: SharedFeed, key: jax.Array) -> Callable[[jax.Array], Batch]:
            return lambda site: draw_at(feed, site, key, count)

        return BatchSource(draw, lambda *_: repeat(feed), reusable=True)  # type: ignore[arg-type]

    return dataclasses.replace(
        job.problem,
        batches=batches,
        devices=None,
        sharing=Sharing(
            meta=partial(shared, weights=weights_of(job), sum_sites=add_up),
            private=partial(
                shared_privately,
                sites=len(names),
                honest=_honest(chosen, len(names)),
                sum_sites=add_up,
            ),
            patients=partial(own_patients, site_of=_site_of_patients(data.train, names)),
        ),
    )


def shared(meta: MetaGradient, *, weights: np.ndarray, sum_sites: SumSites) -> MetaGradient:
    """Averages the sites' meta-gradients: all from the same weights, each on its own patients.

    Args:
      meta: a site's, on a batch of its own.
      weights: of the sites, `[n]`.
      sum_sites: one of `federated.aggregation`.

    Returns:
      `(learned, key, draw) -> (loss, grads)`, where `draw(site)` gives a site's batch.
    """

    def of_site(
        learned: Params, key: jax.Array, draw: Callable[[jax.Array], Batch], site: jax.Array
    ) -> tuple[jax.Array, Any]:
        return meta(learned, key, draw(site))

    return gradients.weighted_gradient(of_site, weights, sum_sites)


def shared_privately(
    after_training: Callable[..., MetaGradient],
    noise: float,
    *,
    sites: int,
    honest: int,
    sum_sites: SumSites,
) -> Callable[..., MetaGradient]:
    """Shares the noise of a private meta-gradient out among sites, each of which clips its own.

    Each site adds noise of the multiplier noise / sqrt(honest); see `gradients.private_gradient`.
    Pulling back is linear, and from the same trained weights at all sites: the sum of what they
    pull back is that of their noisy sums, pulled back.

    Args:
      after_training: see `privacy.meta_gradient.after_training`.
      noise: multiplier of the whole.
      sites: n.
      honest: sites whose noise is counted on.
      sum_sites: one of `federated.aggregation`.

    Returns:
      What builds the meta-gradient, on `draw(site)` in place of a batch.
    """

    def build(network: Network, **how: Any) -> MetaGradient:
        how["noise_multiplier"] = noise / honest**0.5

        def meta_gradient(
            learned: Params, key: jax.Array, draw: Callable[[jax.Array], PatientBatch]
        ) -> tuple[jax.Array, Any]:
            def of_site(site: jax.Array) -> tuple[jax.Array, Any]:
                step = after_training(network, **how, site=site)
                return step(learned, key, draw(site))  # type: ignore[arg-type]

            loss, grads = sum_sites(of_site, sites)
            return loss / sites, grads

        return meta_gradient  # type: ignore[return-value]

    return build


def own_patients(source: BatchSource, site_of: np.ndarray) -> BatchSource:
    """Has each site draw of its own patients: each patient by the coin that `source` tosses.

    Args:
      source: of Poisson samples of all patients, from `Cohorts.patient_batches`.
      site_of: each patient's site, `[P]` int.
    """

    def draw(feed: PatientFeed, key: jax.Array) -> Callable[[jax.Array], PatientBatch]:
        def at(site: jax.Array) -> PatientBatch:
            # A patient without patches has no part.
            groups = jnp.where(jnp.asarray(site_of) == site, feed.groups, 0)
            batch: Any = source.draw(dataclasses.replace(feed, groups=groups), key)
            return batch

        return at

    return source._replace(draw=draw)  # type: ignore[arg-type]


def _site_of_patients(cohort: Cohort, names: Sequence[str]) -> np.ndarray:
    """Numbers each patient's site, `[P]`, in the order of the sorted patients."""
    _, first = np.unique(cohort.patients, return_index=True)
    return np.searchsorted(names, cohort.sites[first])


def _honest(chosen: ml_collections.ConfigDict, sites: int) -> int:
    return min(chosen.honest or chosen.threshold or sites, sites)


def weights_of(job: Job) -> np.ndarray:
    """Weighs the sites, `[n]`."""
    train = job.cohorts.train
    names = feeds.site_names(train)
    if job.config.sharing.weights == "equal":
        return np.ones(len(names))
    counts = [len(set(train.patients[train.sites == name].tolist())) for name in names]
    return np.array(counts, float)


def check_threshold(section: str, chosen: ml_collections.ConfigDict, sites: int) -> None:
    """Refuses masked sums of which half the sites could be told another story than the others.

    Args:
      section: of the config, in which `secure` and `threshold` stand.
      chosen: that section.
      sites: n.

    Raises:
      UserError: naming the setting.
    """
    if chosen.secure and not sites < 2 * (chosen.threshold or sites) <= 2 * sites:
        raise UserError(
            f"{section}.threshold is {chosen.threshold}; of {sites} sites more than half must be "
            f"left at the end of a masked sum. Choose {sites // 2 + 1} to {sites}, or 0 for all."
        )


def _sum_of(job: Job, sites: int) -> SumSites:
    chosen = job.config.sharing
    if not chosen.secure:
        return in_sequence
    return masked.masked(chosen.secure_bound, chosen.threshold or sites, job.log)


def write_traffic(job: Job, learned: Params) -> Metadata:
    """Counts what a site sends in a step, beside the weights of the same network.

    Args:
      job: whose network.
      learned: what is learned of the distilled set, as it is sent.

    Returns:
      What `sharing.json` in the working folder holds: `sites`; `sends` and `network_sends`, bytes
      as float32; and `ratio` of the second to the first.
    """
    network = jax.eval_shape(job.problem.network.init, job.key(Use.KNOWN))
    sends, weights = (
        4 * sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (learned, network)
    )
    told = {
        "sites": list(feeds.site_names(job.cohorts.train)),
        "sends": sends,
        "network_sends": weights,
        "ratio": weights / sends,
    }
    storage.write_json(job.workdir / "sharing.json", told)
    return told


def as_text(told: Metadata) -> str:
    """Says what `write_traffic` counted."""
    return (
        f"{len(told['sites'])} sites, {', '.join(told['sites'])}: each sends {told['sends']:,} "
        f"bytes a step; the network's weights would be {told['network_sends']:,}, "
        f"{told['ratio']:.3g} times as many"
    )
