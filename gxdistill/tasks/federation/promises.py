"""What is promised to whom: each mechanism with its unit, and never one in the words of another."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from gxdistill.privacy import ledger
from gxdistill.privacy.clipping import sensitivity
from gxdistill.privacy.events import sampled_gaussian
from gxdistill.privacy.ledger import Event, Ledger
from gxdistill.tasks.federation.training import Sites, honest_sites, patient_sampler

CURVE = (1.0, 2.0, 4.0, 10.0)  # Noise multipliers.


class Promise(NamedTuple):
    """What a training promises.

    Attributes:
      account: its ledger; None where nothing is promised.
      words: what is hidden from whom, and what is not.
    """

    account: Ledger | None
    words: str


_STARTED = " Who the weights that all started from were learned from is not covered."
NONE = Promise(None, "Nothing is promised: no noise was added.")


def site_account(noise: float, rounds: int, delta: float, clip: float = 1.0) -> Ledger:
    """Accounts for noise on a site's clipped updates, one Gaussian release a round.

    Args:
      noise: its multiplier.
      rounds: in which the site takes part, at most.
      delta: at which epsilon is told.
      clip: largest norm of an update.
    """
    event = Event(
        "the site's update", "gaussian", sensitivity(clip), noise, count=rounds, unit="site"
    )
    return Ledger(delta, unit="site").book(event)


def of_site(settings: ConfigDict) -> Promise:
    """States what noise on a site's own update promises."""
    site = settings.site
    return Promise(
        site_account(site.noise, settings.rounds, settings.delta, site.clip),
        "What hides is the site: whether its updates, or none but noise, went into the rounds. It "
        "hides from all, also from the server, for each site adds its noise before it sends. A "
        "single patient is hidden no better than the whole site."
        + (_STARTED if settings.start else ""),
    )


def of_patient(settings: ConfigDict, sites: Sites, key: jax.Array) -> tuple[Promise, float]:
    """Calibrates the noise that hides a patient, unless it is given, and states what it promises.

    Args:
      settings: the section `federation` of a config.
      sites: who takes part.
      key: of the run.

    Returns:
      The promise, and the noise multiplier.
    """
    patient = settings.patient
    sampler = patient_sampler(settings, sites)
    noise = patient.noise or ledger.calibrate(
        patient.epsilon,
        settings.delta,
        mechanism="sampled_gaussian" if patient.sampling < 1 else "gaussian",
        count=patient.rounds,
        sampling_probability=patient.sampling,
    )
    draws = sampler.draws(key, 0, patient.rounds)
    event = sampled_gaussian(
        draws,
        "sums of patients' clipped " + ("gradients" if patient.steps == 1 else "updates"),
        sensitivity=sensitivity(patient.clip),
        noise_multiplier=noise,
    )
    budget = math.inf if patient.noise else patient.epsilon
    account = Ledger(settings.delta, budget=budget).book(event, draws)
    honest = honest_sites(settings, sites.count)
    seen = (
        f"also from the server, which sees masked sums alone, as long as {honest} of the "
        f"{sites.count} sites keep their noise to themselves"
        if settings.secure
        else "but from the server, which is trusted: federation.secure is off, and a single "
        "site's sum has its share of the noise alone"
    )
    return Promise(
        account,
        f"What hides is one patient, at whatever site: whether they took part. It hides from all "
        f"who see the weights, {seen}.{_STARTED if settings.start else ''}",
    ), noise


def curve(rounds: int, delta: float, noises: Sequence[float] = CURVE) -> list[tuple[float, float]]:
    """Tells epsilon for noise on a site's updates, by noise multiplier; the unit is the site."""
    return [(noise, site_account(noise, rounds, delta).epsilon()) for noise in noises]


def curve_text(rounds: int, delta: float, noises: Sequence[float] = CURVE) -> str:
    """Writes `curve` for people."""
    lines = [
        f"epsilon of {rounds} rounds at delta {delta:g}, noise on the site's clipped update; unit: "
        f"the site, whose updates are there or not",
        "  sigma  epsilon",
    ]
    for noise, epsilon in curve(rounds, delta, noises):
        lines.append(f"  {noise:>5g}  {epsilon:.3g}")
    return "\n".join(lines)
