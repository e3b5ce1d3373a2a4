"""What was released, how noisily, and of which sample: a line of the ledger."""

import dataclasses

from gxdistill import _check
from gxdistill.privacy.accounting import MECHANISMS, Term
from gxdistill.privacy.sampling import Draws

UNITS = ("patient", "image", "site")


@dataclasses.dataclass(frozen=True)
class Event:
    """Releases of one kind.

    Attributes:
      what: is released, in words.
      mechanism: one of `accounting.MECHANISMS`; "sampled_gaussian" is of a Poisson sample.
      sensitivity: by how much one unit changes what is released: in L2, for "laplace" in L1.
      noise_multiplier: standard deviation of the noise (for "laplace" its scale) over sensitivity.
      sampling_probability: of a unit to be in the sample; 1 where all are.
      count: number of such releases.
      unit: whose presence they hide, one of `UNITS`.
      stream: names the key of the samples, see `sampling.Draws`; empty where none are drawn.

    Raises:
      ValueError: a field is out of range.
    """

    what: str
    mechanism: str
    sensitivity: float
    noise_multiplier: float
    sampling_probability: float = 1.0
    count: int = 1
    unit: str = "patient"
    stream: str = ""

    def __post_init__(self) -> None:
        """Refuses what no accountant could take."""
        _check.one_of("mechanism", self.mechanism, MECHANISMS)
        _check.one_of("unit", self.unit, UNITS)
        _check.positive(
            sensitivity=self.sensitivity,
            noise_multiplier=self.noise_multiplier,
            sampling_probability=self.sampling_probability,
            count=self.count,
        )
        _check.share(sampling_probability=self.sampling_probability)
        if (self.mechanism == "sampled_gaussian") != bool(self.stream):
            raise ValueError(
                f"`stream` is {self.stream!r} of a {self.mechanism} event; what is sampled, and "
                f"only that, names its stream. Take it from the draws of a PatientSampler."
            )
        if not self.stream and self.sampling_probability != 1:
            raise ValueError(
                f"`sampling_probability` is {self.sampling_probability} of a {self.mechanism} "
                f"event; only a sampled_gaussian one is of a sample."
            )

    @property
    def term(self) -> Term:
        """The event as the accountant sees it."""
        return Term(self.mechanism, self.noise_multiplier, self.sampling_probability, self.count)


def kind(event: Event) -> Event:
    """Returns the event of one release, by which releases of one kind are known."""
    return dataclasses.replace(event, count=1)


def merged(events: tuple[Event, ...], event: Event) -> tuple[Event, ...]:
    """Adds an event; releases of one kind become one."""
    for i, booked in enumerate(events):
        if kind(booked) == kind(event):
            total = dataclasses.replace(booked, count=booked.count + event.count)
            return (*events[:i], total, *events[i + 1 :])
    return (*events, event)


def sampled_gaussian(
    draws: Draws, what: str, *, sensitivity: float, noise_multiplier: float, unit: str = "patient"
) -> Event:
    """Makes the event of noisy sums over Poisson samples; `meta_gradient` makes their noise."""
    return Event(
        what,
        "sampled_gaussian",
        sensitivity,
        noise_multiplier,
        sampling_probability=draws.probability,
        count=draws.count,
        unit=unit,
        stream=draws.stream,
    )
