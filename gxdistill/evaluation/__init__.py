"""How good a network is: of patches, whole images and masks, and with what uncertainty."""

from typing import TYPE_CHECKING

from gxdistill import _lazy

if TYPE_CHECKING:
    from gxdistill.evaluation.decision import (
        choose_threshold,
        decide,
        fit_weights,
        score,
        summarise,
    )
    from gxdistill.evaluation.metrics import (
        UndefinedError,
        auc,
        balanced_accuracy,
        bootstrap,
        bootstrap_interval,
        confusion_matrix,
        harmonic_mean,
        percentile_interval,
        roc_curve,
        sensitivity_specificity,
        sensitivity_specificity_at,
    )
    from gxdistill.evaluation.overlap import dice, jaccard, pixel_accuracy, recall
    from gxdistill.evaluation.patches import PatchGrid, patch_accuracy, table_predictions
    from gxdistill.evaluation.patches import predict as predict_patches

__all__ = [
    "PatchGrid",
    "UndefinedError",
    "auc",
    "balanced_accuracy",
    "bootstrap",
    "bootstrap_interval",
    "choose_threshold",
    "confusion_matrix",
    "decide",
    "dice",
    "fit_weights",
    "harmonic_mean",
    "jaccard",
    "patch_accuracy",
    "percentile_interval",
    "pixel_accuracy",
    "predict_patches",
    "recall",
    "roc_curve",
    "score",
    "sensitivity_specificity",
    "sensitivity_specificity_at",
    "summarise",
    "table_predictions",
]

__getattr__, __dir__ = _lazy.names(
    __name__,
    {
        "decision": ("choose_threshold", "decide", "fit_weights", "score", "summarise"),
        "metrics": (
            "UndefinedError",
            "auc",
            "balanced_accuracy",
            "bootstrap",
            "bootstrap_interval",
            "confusion_matrix",
            "harmonic_mean",
            "percentile_interval",
            "roc_curve",
            "sensitivity_specificity",
            "sensitivity_specificity_at",
        ),
        "overlap": ("dice", "jaccard", "pixel_accuracy", "recall"),
        "patches": (
            "PatchGrid",
            "patch_accuracy",
            "predict as predict_patches",
            "table_predictions",
        ),
    },
)
