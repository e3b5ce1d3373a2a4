"""The ledger: every release of private information, what it costs, and what it may cost.

Noise and event are made together, by the functions below: nothing is noised that is not booked, and
nothing is booked as private that was not noised. The unit is the patient.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping

import jax

from gxdistill import _check
from gxdistill.errors import UserError
from gxdistill.package.fields import LedgerRecord, from_json
from gxdistill.package.guarantees import guarantee, rounded_up
from gxdistill.privacy.accounting import (
    CONVERSION,
    LARGEST,
    MECHANISMS,
    MOST_RELEASES,
    Term,
    epsilon,
    most,
    noise_for,
)
from gxdistill.privacy.events import UNITS, kind, merged
from gxdistill.privacy.events import Event as Event  # Part of what a ledger is used with.
from gxdistill.privacy.sampling import Draws
from gxdistill.pytrees import Metadata, Params

ADJACENCIES = ("add_or_remove",)

# Of a ledger that was read: a stranger's.
_MOST_EVENTS, _MOST_NUMBER, _LONGEST = 100, 1e12, 200
_NOISE = 2**32 - 7  # Folded into a key, before the number of releases.


class BudgetError(UserError):
    """The next release would cost more than the budget allows; nothing was released."""


@dataclasses.dataclass(frozen=True)
class Ledger:
    """What was released about the units, and what may be; booking makes a new ledger.

    Attributes:
      delta: at which epsilon is told, between 0 and 1.
      budget: largest epsilon; infinite for none.
      unit: whose presence is hidden, one of `UNITS`.
      adjacency: which data sets are neighbours, one of `ADJACENCIES`.
      events: in the order of their first release; those of one kind are one event.
      uncovered: what was released without noise or depends on the units otherwise, by name.

    Raises:
      ValueError: a field is out of range.

    Example:
      ledger = Ledger(delta=1e-3, budget=8.0)
      noise = calibrate(8.0, 1e-3)
      noisy, ledger = gaussian_release(
          key, total, sensitivity=clipping.sensitivity(1.0), noise_multiplier=noise,
          ledger=ledger, what="sums of features",
      )
    """

    delta: float
    budget: float = math.inf
    unit: str = "patient"
    adjacency: str = "add_or_remove"
    events: tuple[Event, ...] = ()
    uncovered: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuses what states no guarantee."""
        _check.positive(delta=self.delta, budget=self.budget)
        if not self.delta < 1:
            raise ValueError(f"`delta` is {self.delta}; it must be below 1.")
        _check.one_of("unit", self.unit, UNITS)
        _check.one_of("adjacency", self.adjacency, ADJACENCIES)
        for event in self.events:
            if event.unit != self.unit:
                raise ValueError(
                    f"`{event.what}` hides one {event.unit}, and the ledger is of {self.unit}s. "
                    f"Clip and sample by the {self.unit}."
                )

    @property
    def releases(self) -> int:
        """Number of releases booked so far."""
        return sum(event.count for event in self.events)

    def drawn(self, stream: str) -> int:
        """Number of samples booked of a stream, which its next sample follows."""
        return sum(event.count for event in self.events if stream and event.stream == stream)

    def book(self, event: Event, draws: Draws | None = None) -> "Ledger":
        """Books releases; call it before they are made.

        Args:
          event: the releases.
          draws: vouches for the samples of a sampled mechanism, see `sampling.PatientSampler`.

        Returns:
          The ledger with the event.

        Raises:
          BudgetError: the budget would be exceeded.
          UserError: the samples were not drawn as the theorem of sampling asks, or are booked
            already, or some before them are not.
          ValueError: the event hides another unit.
        """
        _check_draws(self, event, draws)
        after = dataclasses.replace(self, events=merged(self.events, event))
        if not after._fits(event):
            raise BudgetError(
                f"Releasing {event.what} ({event.count} times) would raise epsilon to "
                f"{rounded_up(after.epsilon())} at delta {self.delta:g}, above the budget of "
                f"{self.budget:g}; {rounded_up(self.epsilon())} is spent. Raise the budget or the "
                f"noise, or release less."
            )
        return after

    def _fits(self, event: Event) -> bool:
        """Whether all is within the budget, of which `event` is the last that was booked."""
        if math.isinf(self.budget):
            return True
        (total,) = (booked for booked in self.events if kind(booked) == kind(event))
        if total.count == 1:
            return self.epsilon() <= self.budget
        rest = tuple(booked for booked in self.events if booked != total)
        return total.count <= most(self.budget, self.delta, kind(event).term, _terms(rest))

    def leave_uncovered(self, what: str) -> "Ledger":
        """Names what is released beside the events and is not covered by epsilon."""
        return dataclasses.replace(
            self, uncovered=(*self.uncovered, *({what} - set(self.uncovered)))
        )

    def epsilon(self) -> float:
        """Composes all events; infinite where it would be above 100.

        Raises:
          UserError: dp-accounting is not installed.
        """
        return epsilon(_terms(self.events), self.delta)

    def statement(self) -> str:
        """States the guarantee in words: epsilon, delta, unit and adjacency."""
        return guarantee(self.record())

    def to_dict(self) -> Metadata:
        """Returns the ledger as JSON can hold it, with the epsilon that it comes to."""
        spent = self.epsilon()
        return {
            "unit": self.unit,
            "adjacency": self.adjacency,
            "delta": self.delta,
            "budget": None if math.isinf(self.budget) else self.budget,
            "epsilon": None if math.isinf(spent) else spent,
            "conversion": CONVERSION,
            "events": [dataclasses.asdict(event) for event in self.events],
            "uncovered": list(self.uncovered),
        }

    def record(self) -> LedgerRecord:
        """Returns the ledger as the manifest of a package holds it."""
        return from_json(LedgerRecord, self.to_dict())

    @classmethod
    def from_dict(cls, table: Metadata) -> "Ledger":
        """Reads a ledger, a stranger's: the epsilon that it claims is not believed but composed.

        Raises:
          UserError: it is none, or larger than any of ours.
        """
        try:
            _check_bounds(table)
            budget = table["budget"]
            return cls(
                delta=table["delta"],
                budget=math.inf if budget is None else budget,
                unit=table["unit"],
                adjacency=table["adjacency"],
                events=tuple(Event(**event) for event in table["events"]),
                uncovered=tuple(table["uncovered"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"This is no ledger: {error}. Get a fresh copy.") from error


def _terms(events: tuple[Event, ...]) -> tuple[Term, ...]:
    return tuple(sorted(event.term for event in events))


def _check_draws(ledger: Ledger, event: Event, draws: Draws | None) -> None:
    if event.mechanism != "sampled_gaussian":
        return
    if not isinstance(draws, Draws):
        raise UserError(
            f"Releasing {event.what} counts on Poisson samples of {event.unit}s, and the batch "
            f"was not drawn so. Draw it by privacy.sampling.PatientSampler."
        )
    drawn = draws.stream, draws.probability, draws.count
    if drawn != (event.stream, event.sampling_probability, event.count):
        raise UserError(
            f"Releasing {event.what} is booked for {event.count} samples of probability "
            f"{event.sampling_probability:g}, and {draws.count} of {draws.probability:g} were "
            f"drawn, or by another key. Book what was drawn."
        )
    booked = ledger.drawn(draws.stream)
    if draws.first != booked:
        raise UserError(
            f"Releasing {event.what} is booked for {booked} samples, and the next is number "
            f"{draws.first}: some would be {'lost' if draws.first > booked else 'booked twice'}. "
            f"Resume from the checkpoint that the ledger lies in."
        )


def _check_bounds(table: Metadata) -> None:
    """Refuses a table that could not be ours, before anything is made of it."""
    if not isinstance(table, Mapping):
        raise ValueError("it is not a table")
    if not all(isinstance(table[name], list) for name in ("events", "uncovered")):
        raise ValueError("its events are not a list")
    if len(table["events"]) > _MOST_EVENTS or len(table["uncovered"]) > _MOST_EVENTS:
        raise ValueError(f"it has more than {_MOST_EVENTS} events")
    texts, numbers = [table["unit"], table["adjacency"], *table["uncovered"]], [table["delta"]]
    numbers += [] if table["budget"] is None else [table["budget"]]
    for event in table["events"]:
        texts += [event["what"], event["mechanism"], event["unit"], event["stream"]]
        names = ("sensitivity", "noise_multiplier", "sampling_probability")
        numbers += [event[name] for name in names]
        if type(event["count"]) is not int or not 0 < event["count"] <= MOST_RELEASES:
            raise ValueError(f"a count is not a whole number up to {MOST_RELEASES}")
        if not re.fullmatch(r"[0-9a-f]{0,16}", event["stream"]):
            raise ValueError("a stream is not named by 16 hexadecimal digits")
    for text in texts:
        if type(text) is not str or len(text) > _LONGEST or not text.isprintable():
            raise ValueError(f"a name is not a line of {_LONGEST} characters")
    for number in numbers:
        if type(number) not in (int, float) or not abs(number) <= _MOST_NUMBER:
            raise ValueError("a number is missing, or out of all bounds")


def calibrate(
    epsilon: float,
    delta: float,
    *,
    mechanism: str = "gaussian",
    count: int = 1,
    sampling_probability: float = 1.0,
    beside: tuple[Event, ...] = (),
) -> float:
    """Searches the least noise multiplier with which releases fit into (epsilon, delta); cached.

    Args:
      epsilon: of all releases together.
      delta: likewise.
      mechanism: one of `accounting.MECHANISMS`.
      count: number of releases.
      sampling_probability: of a unit to be in the sample of a release.
      beside: what else is released.

    Returns:
      Noise multiplier, see `Event`.

    Raises:
      UserError: no noise suffices, for what is beside; or dp-accounting is not installed.
      ValueError: a number is out of range.

    Example:
      calibrate(1.0, 1e-3)  # 2.575, of one Gaussian release
    """
    _check.one_of("mechanism", mechanism, MECHANISMS)
    term = Term(mechanism, 1.0, sampling_probability, count)
    noise = noise_for(min(epsilon, LARGEST), delta, term, _terms(beside))
    if noise is None:
        raise UserError(
            f"No noise fits {count} releases into epsilon {epsilon:g} at delta {delta:g} beside "
            f"what is released already. Raise the budget, or release less."
        )
    return noise


def gaussian_release(
    key: jax.Array,
    value: Params,
    *,
    sensitivity: float,
    noise_multiplier: float,
    ledger: Ledger,
    what: str,
) -> tuple[Params, Ledger]:
    """Books a release, then adds Gaussian noise of deviation `noise_multiplier * sensitivity`.

    Args:
      key: typed, secret PRNG key; the number of releases booked before is folded in, so that one
        key serves all releases of a ledger. Who knows it can take the noise off.
      value: a pytree of float arrays, whose L2 distance between neighbours is over all together.
      sensitivity: that distance at most, see `clipping.sensitivity`.
      noise_multiplier: of the noise, see `calibrate`.
      ledger: what was released before.
      what: is released, in words.

    Returns:
      The noisy value, and the ledger with the event.

    Raises:
      BudgetError: the budget would be exceeded; nothing was made.
    """
    event = Event(what, "gaussian", sensitivity, noise_multiplier, unit=ledger.unit)
    after = ledger.book(event)
    return add_noise(release_key(key, ledger), value, sensitivity * noise_multiplier), after


def laplace_release(
    key: jax.Array,
    value: Params,
    *,
    sensitivity: float,
    noise_multiplier: float,
    ledger: Ledger,
    what: str,
) -> tuple[Params, Ledger]:
    """Books a release, then adds Laplace noise of scale `noise_multiplier * sensitivity`.

    As `gaussian_release`, but the distance between neighbours is in L1.
    """
    event = Event(what, "laplace", sensitivity, noise_multiplier, unit=ledger.unit)
    after = ledger.book(event)
    scale = sensitivity * noise_multiplier
    return add_noise(release_key(key, ledger), value, scale, jax.random.laplace), after


def release_key(key: jax.Array, ledger: Ledger) -> jax.Array:
    """Derives the key of a ledger's next release; no two releases share it."""
    return jax.random.fold_in(jax.random.fold_in(key, _NOISE), ledger.releases)


def add_noise(
    key: jax.Array,
    value: Params,
    scale: float,
    draw: Callable[..., jax.Array] = jax.random.normal,
) -> Params:
    """Adds noise to each number of a pytree; jit-able. On its own it books nothing.

    Args:
      key: typed PRNG key, used for nothing else.
      value: a pytree of float arrays.
      scale: of the noise.
      draw: noise of scale 1, `(key, shape, dtype) -> array`.
    """
    leaves, structure = jax.tree.flatten(value)
    noisy = [
        leaf + scale * draw(jax.random.fold_in(key, i), leaf.shape, leaf.dtype)
        for i, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(structure, noisy)
