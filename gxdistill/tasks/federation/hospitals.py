"""Segmented images by site: what each hospital of a simulated federation has."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from gxdistill.data.batches import labelled
from gxdistill.data.batches.resident import Normalisation
from gxdistill.data.batches.streaming import Pixels
from gxdistill.data.files.manifest import UNKNOWN_SITE
from gxdistill.errors import UserError
from gxdistill.jobs.job import Job
from gxdistill.patching import gather_patches
from gxdistill.pytrees import Batch, Cohort
from gxdistill.segmentation.augmentation import augment
from gxdistill.tasks.federation import feeds
from gxdistill.tasks.federation.feeds import SharedFeed


class Hospitals(NamedTuple):
    """The sites of a job.

    Attributes:
      names: of the n sites, in order.
      train: their training patients, with masks.
      test: test patients, likewise.
      classes: names of the K classes of a pixel.
    """

    names: tuple[str, ...]
    train: Cohort
    test: Cohort
    classes: tuple[str, ...]


@flax.struct.dataclass
class Feed:
    """Training images on the device and whose they are; an argument of jitted code.

    Attributes:
      shared: images with their label maps as a last channel, and how each site draws crops.
      of_patient: images of each site's patients, `[n, P, most]` int32, those that show a structure
        first; what is beyond `shown` fills up.
      shown: number of images of each patient, `[n, P]` int32.
      structured: of them, number that show a structure, `[n, P]` int32.
      patients: number of patients of each site, `[n]` int32.
    """

    shared: SharedFeed
    of_patient: jax.Array
    shown: jax.Array
    structured: jax.Array
    patients: jax.Array


def class_names(config: ConfigDict) -> tuple[str, ...]:
    """Names the classes of a pixel, the background first."""
    return tuple(config.data.mask_classes) or ("background", "organ")


def of_job(job: Job) -> Hospitals:
    """Takes the cohort of a job for its masks.

    Raises:
      UserError: it has no masks, or one site alone, or a mask has more classes than are named.
    """
    train, test, classes = _read(job)
    train = _gathered(train, job.config.federation.least)
    return Hospitals(feeds.site_names(train), train, test, classes)


def of_site(job: Job, name: str) -> Hospitals:
    """Takes of the cohort of a job what is a site's: the patients whose site has that name, or all.

    Args:
      job: of the site.
      name: of the site.

    Raises:
      UserError: the cohort has no masks, or several sites and none of that name, or a mask has more
        classes than are named.
    """
    train, test, classes = _read(job)
    known = sorted(set(train.sites.tolist()))
    if name in known:
        train, test = (split.select(split.sites == name) for split in (train, test))
    elif known != [UNKNOWN_SITE]:
        raise UserError(
            f"--site is {name!r}, and the cohort in {job.config.data.path} has patients of "
            f"{', '.join(known[:10])}. Name one of these, or leave the column `site` out."
        )
    whole = dataclasses.replace(train, sites=np.full(len(train.sites), name))
    return Hospitals((name,), whole, test, classes)


def _read(job: Job) -> tuple[Cohort, Cohort, tuple[str, ...]]:
    if job.cohorts.source.cohort.masks is None:
        raise UserError(
            f"The cohort in {job.config.data.path} has no masks, which is what a federation learns "
            f"here. Name their column, as --config.data.columns.mask=masks/{{id}}.png."
        )
    train, test = (_dealt(split, job) for split in (job.cohorts.train, job.cohorts.test))
    classes = class_names(job.config)
    most = max(int(np.max(mask)) for split in (train, test) for mask in split.masks)  # type: ignore[union-attr]
    if most >= len(classes):
        raise UserError(
            f"A mask holds class {most}, and data.mask_classes names {len(classes)}: "
            f"{', '.join(classes)}. Name all, the background first."
        )
    return train, test, classes


def _gathered(cohort: Cohort, least: int) -> Cohort:
    """Makes one site, "others", of those with fewer patients than `least`."""
    names, site = np.unique(cohort.sites, return_inverse=True)
    few = [len(set(cohort.patients[site == i].tolist())) < least for i in range(len(names))]
    return dataclasses.replace(cohort, sites=np.where(few, "others", names)[site])


def _dealt(cohort: Cohort, job: Job) -> Cohort:
    """Deals patients out to made-up sites, where that is asked."""
    count = job.config.federation.deal
    if not count:
        return cohort
    names, patient = np.unique(cohort.patients, return_inverse=True)
    place = np.random.default_rng(job.config.seed).permutation(len(names)) % count
    sites = np.array([f"site-{i}" for i in range(count)])[place[patient]]
    return dataclasses.replace(cohort, sites=sites)


def normalisation(channels: int) -> Normalisation:
    """Scales pixels to -2 .. 2 by constants: no statistic of patients is used."""
    return Normalisation((0.5,) * channels, (0.25,) * channels)


def place(data: Hospitals, names: tuple[str, ...], config: ConfigDict) -> Feed:
    """Puts training images on the device, for the sites of the given names; "" is all together.

    Raises:
      UserError: the crops or their sampling do not fit the images.
    """
    whole = labelled.with_label_maps(data.train)
    table = labelled.crop_table(whole, config.patch.size, config.patch.stride)
    images = jnp.asarray(np.asarray(whole.images))
    shared = feeds.shared_feed(images, whole, table, names, config.sampling)
    everyone = np.arange(len(whole.patients))
    rows = [everyone[whole.sites == name] if name else everyone for name in names]
    patients = [_by_patient(whole.patients, of_site) for of_site in rows]
    most = max(map(len, patients)), max(len(p) for of_site in patients for p in of_site)
    of_patient = np.zeros((len(names), *most), np.int32)
    shown, structured = np.zeros((2, len(names), most[0]), np.int32)
    empty = ~np.any(np.asarray(whole.images)[..., -1], axis=(1, 2))
    for site, of_site in enumerate(patients):
        for i, images_of in enumerate(of_site):
            in_order = images_of[np.argsort(empty[images_of], kind="stable")]
            of_patient[site, i, : len(images_of)] = in_order
            shown[site, i] = len(images_of)
            structured[site, i] = np.sum(~empty[images_of])
    of_images = jnp.asarray(of_patient), jnp.asarray(shown), jnp.asarray(structured)
    return Feed(shared, *of_images, jnp.asarray(list(map(len, patients)), jnp.int32))


def _by_patient(patients: np.ndarray, rows: np.ndarray) -> list[np.ndarray]:
    return [rows[patients[rows] == name] for name in np.unique(patients[rows])]


def draw(feed: Feed, site: jax.Array, key: jax.Array, *, config: ConfigDict) -> Batch:
    """Draws augmented crops of a site's images; jit-able.

    Args:
      feed: from `place`.
      site: its number.
      key: typed PRNG key.
      config: of the job.

    Returns:
      The batch, its targets `[B, size, size]` int32.
    """
    draw_key, change_key = jax.random.split(key)
    size, batch = config.patch.size, config.federation.batch
    pixels = feeds.draw_pixels(feed.shared, site, draw_key, size=size, batch=batch)
    return _to_batch(pixels, change_key, config.federation.augment)


def draw_of_patient(
    feed: Feed, site: jax.Array, patient: jax.Array, key: jax.Array, *, config: ConfigDict
) -> Batch:
    """Draws crops of one patient's images, from anywhere in them; jit-able."""
    image_key, crop_key, change_key = jax.random.split(key, 3)
    settings, size = config.federation.patient, config.patch.size
    count, shown = settings.crops, feed.shown[site, patient]
    if settings.shown:
        structured, share_key = feed.structured[site, patient], jax.random.fold_in(key, 3)
        asked = jax.random.uniform(share_key, (count,)) < settings.shown
        shown = jnp.where(asked & (structured > 0), structured, shown)
    chosen = jax.random.randint(image_key, (count,), 0, shown)
    image = feed.of_patient[site, patient][chosen]
    height, width = feed.shared.images.shape[1:3]
    room = jnp.array([[height - size + 1], [width - size + 1]])
    row, col = jax.random.randint(crop_key, (2, count), 0, room)
    crops = gather_patches(feed.shared.images, image, row, col, size=size)
    names = config.federation.augment if settings.augmented else ()
    return _to_batch(Pixels(crops, image, image), change_key, names)


def _to_batch(pixels: Pixels, key: jax.Array, names: Sequence[str]) -> Batch:
    changed = partial(augment, tuple(names))
    scale = normalisation(pixels.images.shape[-1] - 1)
    return labelled.to_batch(pixels, key, normalise=scale, augment=changed)
