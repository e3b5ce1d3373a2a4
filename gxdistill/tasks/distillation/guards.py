"""What a config that promises privacy may not do: releases that no noise covers are refused."""

from ml_collections import ConfigDict

from gxdistill.errors import UserError


def check_privacy(config: ConfigDict) -> None:
    """Refuses releases that no noise covers, where privacy is asked for.

    Raises:
      UserError: naming the setting.
    """
    if config.privacy.mechanism == "none":
        return
    refused = {
        "distill.started_from": (config.distill.started_from, ("noise",)),
        "distill.started_labels": (config.distill.started_labels, ("classes",)),
        "data.levels": (config.data.levels, ("fixed",)),
        "decision.rule": (config.decision.rule, ("soft", "counts")),
    }
    for name, (value, allowed) in refused.items():
        if value not in allowed:
            raise UserError(
                f"{name} is {value!r}, which releases what no noise covers, and privacy.mechanism "
                f"is {config.privacy.mechanism!r}. Set --config.{name}={allowed[0]}."
            )


def is_private(config: ConfigDict) -> bool:
    """Whether a config asks for a guarantee."""
    return config.privacy.mechanism != "none"


def releases_statistics(config: ConfigDict) -> bool:
    """Whether statistics are released once, in place of meta-gradients."""
    return bool(config.privacy.mechanism == "statistics")


def check_no_guarantee(config: ConfigDict, what: str) -> None:
    """Refuses what learns from patients without noise, where privacy is asked for.

    Raises:
      UserError: saying what.
    """
    if is_private(config):
        raise UserError(
            f"{what} learns from patients without noise, and privacy.mechanism is "
            f"{config.privacy.mechanism!r}. Share the package of `gxdistill distill` as it is."
        )
