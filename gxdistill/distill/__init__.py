"""The method: unroll an inner training loop on distilled data and differentiate through it.

Everything here receives functions; nothing imports `models` or `data`. `augment`, `replay` and
`unroll` are modules here: the functions of that name are theirs, the last two also `gxdistill`'s.
"""

from typing import TYPE_CHECKING

from gxdistill import _lazy

if TYPE_CHECKING:
    from gxdistill.distill.baselines import (
        class_means,
        kmeans_centres,
        random_real,
        with_best_rate,
        with_teacher_labels,
    )
    from gxdistill.distill.init import LABEL_RULES, from_images, noise, targets
    from gxdistill.distill.inner import Inner, adam, momentum, sgd
    from gxdistill.distill.inner import create as create_inner
    from gxdistill.distill.losses import inner_loss, real_loss
    from gxdistill.distill.memory import Memory
    from gxdistill.distill.meta_gradient import MetaGradient, after_training
    from gxdistill.distill.outer import clip_by_running_norm, distiller, optimizer
    from gxdistill.distill.replay import ordinary, replay_many
    from gxdistill.distill.synthesis import Synthesis, bases, levels, pixels, tiles
    from gxdistill.distill.truncation import (
        InnerLoop,
        adaptive_window,
        fixed_window,
        full,
        random_window,
    )
    from gxdistill.distill.unroll import Training, choose_memory
    from gxdistill.distill.views import (
        as_learned,
        hard_labels,
        order_free,
        shared_rate,
        shuffled,
        synthesised,
    )

__all__ = [
    "LABEL_RULES",
    "Inner",
    "InnerLoop",
    "Memory",
    "MetaGradient",
    "Synthesis",
    "Training",
    "adam",
    "adaptive_window",
    "after_training",
    "as_learned",
    "bases",
    "choose_memory",
    "class_means",
    "clip_by_running_norm",
    "create_inner",
    "distiller",
    "fixed_window",
    "from_images",
    "full",
    "hard_labels",
    "inner_loss",
    "kmeans_centres",
    "levels",
    "momentum",
    "noise",
    "optimizer",
    "order_free",
    "ordinary",
    "pixels",
    "random_real",
    "random_window",
    "real_loss",
    "replay_many",
    "sgd",
    "shared_rate",
    "shuffled",
    "synthesised",
    "targets",
    "tiles",
    "with_best_rate",
    "with_teacher_labels",
]

__getattr__, __dir__ = _lazy.names(
    __name__,
    {
        "baselines": (
            "class_means",
            "kmeans_centres",
            "random_real",
            "with_best_rate",
            "with_teacher_labels",
        ),
        "init": ("LABEL_RULES", "from_images", "noise", "targets"),
        "inner": ("Inner", "adam", "create as create_inner", "momentum", "sgd"),
        "losses": ("inner_loss", "real_loss"),
        "memory": ("Memory",),
        "meta_gradient": ("MetaGradient", "after_training"),
        "outer": ("clip_by_running_norm", "distiller", "optimizer"),
        "replay": ("ordinary", "replay_many"),
        "synthesis": ("Synthesis", "bases", "levels", "pixels", "tiles"),
        "truncation": ("InnerLoop", "adaptive_window", "fixed_window", "full", "random_window"),
        "unroll": ("Training", "choose_memory"),
        "views": (
            "as_learned",
            "hard_labels",
            "order_free",
            "shared_rate",
            "shuffled",
            "synthesised",
        ),
    },
)
