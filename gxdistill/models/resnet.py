"""ResNet-18 with GroupNorm."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from gxdistill.convolution.pooling import max_pool
from gxdistill.models.layers import Conv, Norm, dense


class Block(nn.Module):
    """The basic residual block: two 3x3 convolutions and a shortcut.

    Attributes:
      features: channels.
      stride: of the first convolution.
      dtype: in which the products are computed.
    """

    features: int
    stride: int = 1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[N, H, W, C]` to `[N, H / stride, W / stride, features]`."""
        y = Conv(self.features, stride=self.stride, bias=False, dtype=self.dtype)(x)
        y = nn.relu(Norm()(y))
        y = Conv(self.features, bias=False, dtype=self.dtype)(y)
        y = Norm()(y)
        if x.shape != y.shape:
            x = Conv(self.features, 1, self.stride, bias=False, dtype=self.dtype)(x)
            x = Norm()(x)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """A residual network of basic blocks, He et al. 2015, https://arxiv.org/abs/1512.03385.

    Normalised by groups, Wu & He 2018, https://arxiv.org/abs/1803.08494; all scales start at 1. A
    block's last one at 0, as in Goyal et al. 2017, https://arxiv.org/abs/1706.02677, needs more
    steps than a training on a handful of images has. Images under 64 px a side skip the stem's
    pooling and stride, as is usual for small images.

    Attributes:
      classes: K, number of logits.
      stages: blocks of each stage; (2, 2, 2, 2) is ResNet-18.
      width: channels of the first stage, doubled at each next one.
      dtype: in which the products are computed.
    """

    classes: int
    stages: tuple[int, ...] = (2, 2, 2, 2)
    width: int = 64
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images `[N, H, W, C]` to logits `[N, K]` float32."""
        small = min(x.shape[1:3]) < 64
        size, stride = (3, 1) if small else (7, 2)
        x = Conv(self.width, size, stride, bias=False, dtype=self.dtype)(x)
        x = nn.relu(Norm()(x))
        x = x if small else max_pool(x)
        for stage, blocks in enumerate(self.stages):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                x = Block(self.width * 2**stage, stride, self.dtype)(x)
        x = x.mean((1, 2))
        return dense(self.classes, self.dtype)(x)
