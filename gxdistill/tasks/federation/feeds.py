"""Images on the device with how each site draws of its own patients; one site at a time."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from gxdistill.data.batches import resident, sampling
from gxdistill.data.batches.sampling import Sampler
from gxdistill.data.batches.streaming import Pixels
from gxdistill.errors import UserError
from gxdistill.pytrees import Cohort, PatchTable

_AT_SITE = ("shares", "lows", "highs", "ends")  # The rest is of all patients' patches.


@flax.struct.dataclass
class SharedFeed:
    """The images of all sites; an argument of jitted code.

    Attributes:
      images: `[N, H, W, C]` uint8.
      samplers: of the sites: the fields `shares`, `lows`, `highs` and `ends` have a leading axis of
        them.
    """

    images: jax.Array
    samplers: Sampler


def site_names(cohort: Cohort) -> tuple[str, ...]:
    """Lists the sites of training patients.

    Raises:
      UserError: there is but one.
    """
    names = tuple(sorted(set(cohort.sites.tolist())))
    if len(names) < 2:
        raise UserError(
            f"All training images are of one site, {names[0]!r}. Name the sites in the manifest's "
            f"column `site`."
        )
    return names


def shared_feed(
    images: jax.Array,
    cohort: Cohort,
    table: PatchTable,
    names: Sequence[str],
    settings: Mapping[str, Any],
) -> SharedFeed:
    """Prepares drawing at each site, of its own patients alone.

    Args:
      images: of the cohort, on the device.
      cohort: whose patients and sites they are.
      table: the patches of all.
      names: of the sites that draw, in order; "" draws of all of them.
      settings: the section `sampling` of a config. A class that a site lacks leaves its share of a
        batch to the others.

    Raises:
      UserError: a site has no patch, or the weights do not fit.
    """
    known = set(cohort.sites.tolist())
    samplers = []
    for name in names:
        only = {other: float(other == name) for other in known} if name else {}
        try:
            drawn = sampling.sampler(
                cohort,
                table,
                classes=tuple(settings["classes"]),
                sites=only,
                patients=settings["patients"],
            )
        except ValueError as error:
            raise UserError(f"sampling: site {name!r}: {error}") from error
        samplers.append(drawn)
    stacks: dict[str, Any] = {
        field: jnp.stack([getattr(drawn, field) for drawn in samplers]) for field in _AT_SITE
    }
    return SharedFeed(images, dataclasses.replace(samplers[0], **stacks))


def draw_pixels(
    feed: SharedFeed, site: jax.Array, key: jax.Array, *, size: int, batch: int
) -> Pixels:
    """Draws patches of a site's patients; jit-able. See `resident.draw_pixels`."""
    here: dict[str, Any] = {field: getattr(feed.samplers, field)[site] for field in _AT_SITE}
    sampler = dataclasses.replace(feed.samplers, **here)
    of_site = resident.Resident(feed.images, sampler)
    return resident.draw_pixels(of_site, key, size=size, batch=batch)
