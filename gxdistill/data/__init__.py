"""Reading, checking and drawing images; the only place that reads them."""

from typing import TYPE_CHECKING

from gxdistill import _lazy

if TYPE_CHECKING:
    from gxdistill.data.batches.resident import (
        Normalisation,
        Resident,
        draw_batch,
        normalisation,
        place,
    )
    from gxdistill.data.batches.sampling import Sampler, sampler
    from gxdistill.data.files.reading import Recipe
    from gxdistill.data.phantom import phantom_cohort
    from gxdistill.data.quarantine import write_quarantine
    from gxdistill.data.source import Source, read_cohort

__all__ = [
    "Normalisation",
    "Recipe",
    "Resident",
    "Sampler",
    "Source",
    "draw_batch",
    "normalisation",
    "phantom_cohort",
    "place",
    "read_cohort",
    "sampler",
    "write_quarantine",
]

__getattr__, __dir__ = _lazy.names(
    __name__,
    {
        "batches.resident": ("Normalisation", "Resident", "draw_batch", "normalisation", "place"),
        "batches.sampling": ("Sampler", "sampler"),
        "files.reading": ("Recipe",),
        "phantom": ("phantom_cohort",),
        "quarantine": ("write_quarantine",),
        "source": ("Source", "read_cohort"),
    },
)
