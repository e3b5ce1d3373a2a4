"""Training as a pair of pure functions, whatever is trained.

`supervised` is a module here; the function of that name is its own, and `gxdistill`'s.
"""

from typing import TYPE_CHECKING

from gxdistill import _lazy

if TYPE_CHECKING:
    from gxdistill.training.losses import cross_entropy
    from gxdistill.training.steps import Loop, LoopState, loop, several_steps
    from gxdistill.training.supervised import classification_loss

__all__ = [
    "Loop",
    "LoopState",
    "classification_loss",
    "cross_entropy",
    "loop",
    "several_steps",
]

__getattr__, __dir__ = _lazy.names(
    __name__,
    {
        "losses": ("cross_entropy",),
        "steps": ("Loop", "LoopState", "loop", "several_steps"),
        "supervised": ("classification_loss",),
    },
)
