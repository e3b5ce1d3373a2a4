"""ConvNet, the field's standard network for data set distillation."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from gxdistill.convolution.pooling import average_pool
from gxdistill.models.layers import Conv, Norm, dense


class ConvNet(nn.Module):
    """`depth` blocks of 3x3 convolution, norm, ReLU and 2x2 average pooling, then one dense layer.

    ConvNet-3 (depth 3, width 128, instance norm) is the standard of the field since Zhao et al.
    2020, https://arxiv.org/abs/2006.05929; after Gidaris & Komodakis 2018.

    Attributes:
      classes: K, number of logits.
      width: channels of each block.
      depth: number of blocks.
      norm: "instance", "group" or "none".
      dtype: in which the products are computed.
    """

    classes: int
    width: int = 128
    depth: int = 3
    norm: str = "instance"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images `[N, H, W, C]`, at least 2^depth px a side, to logits `[N, K]` float32."""
        for _ in range(self.depth):
            x = Conv(self.width, dtype=self.dtype)(x)
            x = average_pool(nn.relu(Norm(self.norm)(x)))
        x = x.reshape(len(x), -1)
        return dense(self.classes, self.dtype)(x)
