"""The zoo: networks as `Network(init, apply)`, created by name."""

from gxdistill.convolution.conv import compiler_options
from gxdistill.models.zoo import NAMES, SEGMENTERS, create

__all__ = ["NAMES", "SEGMENTERS", "compiler_options", "create"]
