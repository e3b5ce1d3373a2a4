"""LeNet, the network of the base method's digit experiments."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from gxdistill.convolution import overlap
from gxdistill.convolution.conv import conv_pool_relu
from gxdistill.models.layers import Weights, dense


class LeNet(nn.Module):
    """LeNet-5 with ReLU and max pooling, as in Wang et al. 2018, https://arxiv.org/abs/1811.10959.

    Attributes:
      classes: K, number of logits.
      dtype: in which the products are computed.
    """

    classes: int
    dtype: jnp.dtype = jnp.float32

    def setup(self) -> None:
        """Names the layers as packages have them."""
        init = nn.initializers.xavier_normal()
        self.Conv_0 = Weights(6, 5, init)
        self.Conv_1 = Weights(16, 5, init)
        self.Dense_0 = dense(120, self.dtype, init)
        self.Dense_1 = dense(84, self.dtype, init)
        self.Dense_2 = dense(self.classes, self.dtype, init)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images `[N, H, W, C]`, at least 12 px a side, to logits `[N, K]` float32."""
        return self._decided(conv_pool_relu(x.astype(self.dtype), self._layers(x.shape[-1])))

    def apply_windows(
        self, image: jax.Array, corners: jax.Array, size: int, at_once: int
    ) -> jax.Array:
        """Maps patches of one image to logits; see `pytrees.Network.apply_windows`."""
        layers = self._layers(image.shape[-1])
        image = image.astype(self.dtype)
        maps = overlap.image_maps(image, layers)

        def some(corners: jax.Array) -> jax.Array:
            return self._decided(overlap.patch_maps(image, maps, corners, layers, size=size))

        logits = jax.lax.map(some, corners.reshape(-1, at_once, 2))
        return logits.reshape(len(corners), -1)

    def _layers(self, channels: int) -> tuple[overlap.Layer, overlap.Layer]:
        return self.Conv_0(channels), self.Conv_1(6)

    def _decided(self, maps: jax.Array) -> jax.Array:
        x = maps.reshape(len(maps), -1)
        return self.Dense_2(nn.relu(self.Dense_1(nn.relu(self.Dense_0(x)))))
