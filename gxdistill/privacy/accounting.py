"""How much privacy releases cost together: privacy loss distributions, by dp-accounting."""

import dataclasses
import functools
import importlib.metadata
import math
from dataclasses import replace
from typing import Any

from gxdistill import _check
from gxdistill.errors import UserError

MECHANISMS = ("gaussian", "laplace", "sampled_gaussian")
CONVERSION = "privacy loss distributions"
# A larger epsilon promises nothing, and would take privacy loss distributions of any length.
LARGEST = 100.0
MOST_RELEASES = 2**30  # Of one kind.
_LEAST_NOISE, _MOST_NOISE = 2.0**-6, 2.0**20  # Multipliers that a search looks between.
_PRECISION = 2e-4  # Of a multiplier, relative.
_INTERVAL = 1e-4  # Of discretised losses, dp-accounting's own; the finest that is taken.
_POINTS = 2e5  # Of a discretised distribution up to epsilon.
_ORDERS = (*range(2, 65), 128, 256, 512)  # Whole ones: others converge slowly, where at all.


@dataclasses.dataclass(frozen=True, order=True)
class Term:
    """Releases of one kind, as the accountant sees them.

    Attributes:
      mechanism: one of `MECHANISMS`; "sampled_gaussian" is on a Poisson sample of the units.
      noise_multiplier: standard deviation of the noise over the sensitivity (L2); for "laplace",
        scale over the L1 sensitivity.
      sampling_probability: of a unit to be in the sample; 1 where all are.
      count: number of releases.
    """

    mechanism: str
    noise_multiplier: float
    sampling_probability: float = 1.0
    count: int = 1


def _accountants() -> tuple[Any, Any, Any]:
    """Returns dp-accounting's events and its two accountants' modules.

    Raises:
      UserError: it is not installed, or is the one that pip falls back to beside a newer attrs.
    """
    way_out = "Install the extra: pip install '.[privacy]'."
    try:
        version = importlib.metadata.version("dp-accounting")
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(f"Accounting for privacy needs dp-accounting. {way_out}") from error
    if tuple(map(int, version.split(".")[:2])) < (0, 6):
        raise UserError(f"dp-accounting is {version}; at least 0.6 is needed. {way_out}")
    from dp_accounting import dp_event, pld, rdp

    return dp_event, pld, rdp


@functools.lru_cache(maxsize=4096)
def epsilon(terms: tuple[Term, ...], delta: float) -> float:
    """Composes releases and tells epsilon at `delta`, for adding or removing one unit.

    By privacy loss distributions (Koskela et al. 2020, https://arxiv.org/abs/1906.03049; Doroshenko
    et al. 2022, https://arxiv.org/abs/2207.04380), which bound the exact value from above. The
    bound by Renyi divergences (Mironov 2017, https://arxiv.org/abs/1702.07476), which is looser,
    is taken first: it tells how finely losses must be discretised.

    Args:
      terms: what was released; none costs nothing.
      delta: between 0 and 1.

    Returns:
      Epsilon; infinite where it is above `LARGEST`.

    Raises:
      UserError: dp-accounting is not installed.
    """
    if not terms:
        return 0.0
    dp_event, pld, rdp = _accountants()
    by_rdp = (
        rdp.RdpAccountant(orders=_ORDERS).compose(_composed(dp_event, terms)).get_epsilon(delta)
    )
    if not by_rdp <= 2 * LARGEST:
        return math.inf
    interval = max(_INTERVAL, by_rdp / _POINTS)
    accountant = pld.PLDAccountant(value_discretization_interval=interval)
    by_pld = accountant.compose(_composed(dp_event, terms)).get_epsilon(delta)
    value = float(min(by_pld, by_rdp))
    return value if value <= LARGEST else math.inf


def _composed(dp_event: Any, terms: tuple[Term, ...]) -> Any:
    def event(term: Term) -> Any:
        if term.mechanism == "laplace":
            release = dp_event.LaplaceDpEvent(term.noise_multiplier)
        else:
            release = dp_event.GaussianDpEvent(term.noise_multiplier)
        if term.sampling_probability < 1:
            release = dp_event.PoissonSampledDpEvent(term.sampling_probability, release)
        return dp_event.SelfComposedDpEvent(release, term.count)

    return dp_event.ComposedDpEvent([event(term) for term in terms])


@functools.lru_cache(maxsize=256)
def noise_for(
    target: float, delta: float, term: Term, beside: tuple[Term, ...] = ()
) -> float | None:
    """Searches the least noise with which releases fit into a budget.

    Args:
      target: epsilon of all together, from above 0 to `LARGEST`.
      delta: between 0 and 1.
      term: the releases; its own noise multiplier is not looked at.
      beside: what else is released.

    Returns:
      The noise multiplier, to 1 part in 5,000 from above; None where no noise suffices.
    """
    from scipy import optimize

    _check.positive(target=target)

    def spent(noise: float) -> float:
        return epsilon((*beside, replace(term, noise_multiplier=noise)), delta)

    def excess(log_noise: float) -> float:
        value = spent(math.exp(log_noise))
        return math.log(min(max(value, 1e-9), 2 * LARGEST) / target)

    if spent(_MOST_NOISE) > target:
        return None
    high = 1.0
    while spent(high) > target:
        high *= 2
    # From above: the less noise, the longer a composition takes.
    while high > _LEAST_NOISE and spent(high / 2) <= target:
        high /= 2
    if high <= _LEAST_NOISE:
        return high
    root = optimize.brentq(
        excess, math.log(high / 2), math.log(high), xtol=_PRECISION / 4, rtol=_PRECISION / 4
    )
    noise = math.exp(root)
    while spent(noise) > target:
        noise *= 1 + _PRECISION / 2
    return noise


@functools.lru_cache(maxsize=256)
def most(target: float, delta: float, term: Term, beside: tuple[Term, ...] = ()) -> int:
    """Counts the releases of one kind that fit into a budget; for a loop that asks at each step.

    Args:
      target: epsilon of all together.
      delta: between 0 and 1.
      term: the releases; its own count is not looked at.
      beside: what else is released.
    """

    def fits(count: int) -> bool:
        return epsilon((*beside, replace(term, count=count)), delta) <= target

    low, high = 0, 1
    while high < MOST_RELEASES and fits(high):
        low, high = high, 2 * high
    while high > low + 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
