"""The zoo: networks as `Network(init, apply)`, created by name."""

from gxdistill.convolution.conv import compiler_options
from gxdistill.models.zoo import NAMES, create

__all__ = ["NAMES", "compiler_options", "create"]
