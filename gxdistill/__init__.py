"""Dataset distillation for medical images, as pure functions over pytrees.

What most programs need is here; the folders `data`, `distill`, `evaluation`, `models`, `package`,
`receive` and `training` have more. A name that would say too little outside of its folder has its
noun added: `models.create` is `create_network` here. docs/python.md lists all and shows their use.

The names are loaded when they are first used: `import gxdistill` costs nothing, and the command
line can print its help without JAX.
"""

from typing import TYPE_CHECKING

from gxdistill import _lazy

if TYPE_CHECKING:
    from gxdistill.data.source import read_cohort
    from gxdistill.distill.init import noise as distilled_from_noise
    from gxdistill.distill.inner import create as create_inner
    from gxdistill.distill.memory import Memory
    from gxdistill.distill.meta_gradient import after_training
    from gxdistill.distill.outer import distiller, optimizer
    from gxdistill.distill.replay import replay
    from gxdistill.distill.truncation import adaptive_window, fixed_window, random_window
    from gxdistill.distill.truncation import full as full_unroll
    from gxdistill.distill.unroll import Training, unroll
    from gxdistill.errors import UserError
    from gxdistill.evaluation.decision import choose_threshold, decide
    from gxdistill.evaluation.decision import score as score_images
    from gxdistill.evaluation.metrics import (
        auc,
        balanced_accuracy,
        bootstrap_interval,
        sensitivity_specificity,
    )
    from gxdistill.evaluation.overlap import dice
    from gxdistill.evaluation.patches import predict as predict_patches
    from gxdistill.models.zoo import create as create_network
    from gxdistill.package.content import Package
    from gxdistill.package.content import load as load_package
    from gxdistill.patching import extract_patches, patch_corners, patch_table
    from gxdistill.pytrees import Batch, Cohort, Distilled, Network, PatchTable
    from gxdistill.receive.networks import train_networks
    from gxdistill.receive.predicting import predict as predict_images
    from gxdistill.training.steps import several_steps
    from gxdistill.training.supervised import classification_loss, supervised

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "Cohort",
    "Distilled",
    "Memory",
    "Network",
    "Package",
    "PatchTable",
    "Training",
    "UserError",
    "adaptive_window",
    "after_training",
    "auc",
    "balanced_accuracy",
    "bootstrap_interval",
    "choose_threshold",
    "classification_loss",
    "create_inner",
    "create_network",
    "decide",
    "dice",
    "distilled_from_noise",
    "distiller",
    "extract_patches",
    "fixed_window",
    "full_unroll",
    "load_package",
    "optimizer",
    "patch_corners",
    "patch_table",
    "predict_images",
    "predict_patches",
    "random_window",
    "read_cohort",
    "replay",
    "score_images",
    "sensitivity_specificity",
    "several_steps",
    "supervised",
    "train_networks",
    "unroll",
]

__getattr__, __dir__ = _lazy.names(
    __name__,
    {
        "data.source": ("read_cohort",),
        "distill.init": ("noise as distilled_from_noise",),
        "distill.inner": ("create as create_inner",),
        "distill.memory": ("Memory",),
        "distill.meta_gradient": ("after_training",),
        "distill.outer": ("distiller", "optimizer"),
        "distill.replay": ("replay",),
        "distill.truncation": (
            "adaptive_window",
            "fixed_window",
            "full as full_unroll",
            "random_window",
        ),
        "distill.unroll": ("Training", "unroll"),
        "errors": ("UserError",),
        "evaluation.decision": ("choose_threshold", "decide", "score as score_images"),
        "evaluation.metrics": (
            "auc",
            "balanced_accuracy",
            "bootstrap_interval",
            "sensitivity_specificity",
        ),
        "evaluation.overlap": ("dice",),
        "evaluation.patches": ("predict as predict_patches",),
        "models.zoo": ("create as create_network",),
        "package.content": ("Package", "load as load_package"),
        "patching": ("extract_patches", "patch_corners", "patch_table"),
        "pytrees": ("Batch", "Cohort", "Distilled", "Network", "PatchTable"),
        "receive.networks": ("train_networks",),
        "receive.predicting": ("predict as predict_images",),
        "training.steps": ("several_steps",),
        "training.supervised": ("classification_loss", "supervised"),
    },
)
