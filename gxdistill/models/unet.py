"""U-Net with GroupNorm, the field's standard network for segmentation."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from gxdistill.convolution.pooling import kept, max_pool
from gxdistill.models.layers import Conv, Norm, wide


class Block(nn.Module):
    """Two 3x3 convolutions, each followed by norm and ReLU.

    Attributes:
      features: channels.
      norm: "instance", "group" or "none".
      dtype: in which the products are computed.
    """

    features: int
    norm: str
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[N, H, W, C]` to `[N, H, W, features]`."""
        for _ in range(2):
            x = Conv(self.features, bias=False, dtype=self.dtype)(x)
            x = nn.relu(Norm(self.norm)(x))
        return x


class UNet(nn.Module):
    """A U-Net, Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597.

    Normalised by groups, Wu & He 2018, https://arxiv.org/abs/1803.08494; convolutions keep the size
    of their input. Images whose sides are no multiples of 2^depth are continued by their last
    pixels, and the logits cut back.

    Attributes:
      classes: K, number of logits of a pixel.
      width: channels at the finest level, doubled at each coarser one.
      depth: number of times that the resolution is halved.
      levels: number of resolutions, from the finest on, that give logits in training: deep
        supervision, Lee et al. 2015, https://arxiv.org/abs/1409.5185; 1 is the finest alone.
      norm: "instance", "group" or "none".
      dtype: in which the products are computed.
    """

    classes: int
    width: int = 16
    depth: int = 3
    levels: int = 1
    norm: str = "group"
    dtype: jnp.dtype = jnp.float32

    def setup(self) -> None:
        """Names the layers as packages have them, from the finest level to the coarsest."""
        if not 0 < self.levels <= self.depth:
            raise ValueError(
                f"`levels` is {self.levels}; a U-Net of depth {self.depth} gives logits at 1 to "
                f"{self.depth} resolutions. Lower it."
            )
        features = [self.width * 2**level for level in range(self.depth + 1)]
        self.down = [Block(count, self.norm, self.dtype) for count in features]
        # A transposed convolution of 2x2 at stride 2, written as the product that it is.
        self.up = [Conv(4 * count, 1, dtype=self.dtype) for count in features[:-1]]
        self.joined = [Block(count, self.norm, self.dtype) for count in features[:-1]]
        self.heads = [Conv(self.classes, 1, dtype=self.dtype) for _ in range(self.levels)]

    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps images `[N, H, W, C]` to logits `[N, H, W, K]`, float32 at least."""
        return self._logits(images, 1)[0]

    def apply_levels(self, images: jax.Array) -> tuple[jax.Array, ...]:
        """Maps images to the logits of each supervised resolution; see `pytrees.Network`."""
        return self._logits(images, self.levels)

    def _logits(self, images: jax.Array, levels: int) -> tuple[jax.Array, ...]:
        _, height, width, _ = images.shape
        below, right = (-side % 2**self.depth for side in (height, width))
        x = jnp.pad(images, ((0, 0), (0, below), (0, right), (0, 0)), mode="edge")
        skipped = []
        for block in self.down[:-1]:
            skipped.append(block(x))
            x = max_pool(skipped[-1])
        x = self.down[-1](x)
        maps = []
        for level in reversed(range(self.depth)):
            raised = depth_to_space(kept(self.up[level](x)))
            x = self.joined[level](kept(jnp.concatenate([skipped[level], raised], -1)))
            maps.append(x)
        finest_first = maps[::-1][:levels]
        # Pixels of a coarser level that lie beyond the image are cut off with it.
        sizes = [(-(-height // 2**i), -(-width // 2**i)) for i in range(levels)]
        return tuple(
            wide(head(x))[:, :tall, :broad]
            for head, x, (tall, broad) in zip(self.heads, finest_first, sizes, strict=False)
        )


def depth_to_space(x: jax.Array) -> jax.Array:
    """Lays four channels out as 2x2 pixels: `[N, H, W, 4 C]` to `[N, 2 H, 2 W, C]`."""
    count, height, width, channels = x.shape
    x = x.reshape(count, height, width, 2, 2, channels // 4)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(count, 2 * height, 2 * width, channels // 4)
