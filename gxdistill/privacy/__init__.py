"""Privacy of patients: what is promised is proved, what is not is measured."""

from typing import TYPE_CHECKING

from gxdistill import _lazy

if TYPE_CHECKING:
    from gxdistill.privacy.clipping import clip_by_norm, clipped_sum, sensitivity
    from gxdistill.privacy.ledger import (
        BudgetError,
        Event,
        Ledger,
        calibrate,
        gaussian_release,
        laplace_release,
    )
    from gxdistill.privacy.sampling import PatientSampler

__all__ = [
    "BudgetError",
    "Event",
    "Ledger",
    "PatientSampler",
    "calibrate",
    "clip_by_norm",
    "clipped_sum",
    "gaussian_release",
    "laplace_release",
    "sensitivity",
]

__getattr__, __dir__ = _lazy.names(
    __name__,
    {
        "clipping": ("clip_by_norm", "clipped_sum", "sensitivity"),
        "ledger": (
            "BudgetError",
            "Event",
            "Ledger",
            "calibrate",
            "gaussian_release",
            "laplace_release",
        ),
        "sampling": ("PatientSampler",),
    },
)
