"""Plans: what a job would cost on a device that is not there, read from that device's compiler."""

from gxdistill.plan.planning import Plan, as_text, describe, make
from gxdistill.plan.targets import NAMES

__all__ = ["NAMES", "Plan", "as_text", "describe", "make"]
