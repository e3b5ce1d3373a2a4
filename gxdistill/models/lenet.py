"""LeNet, the network of the base method's digit experiments."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from gxdistill.models.conv import conv_pool_relu
from gxdistill.models.layers import Weights, dense


class LeNet(nn.Module):
    """LeNet-5 with ReLU and max pooling, as in Wang et al. 2018, https://arxiv.org/abs/1811.10959.

    Attributes:
      classes: K, number of logits.
      dtype: in which the products are computed.
    """

    classes: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images `[N, H, W, C]`, at least 12 px a side, to logits `[N, K]` float32."""
        init = nn.initializers.xavier_normal()
        first = Weights(6, 5, init, name="Conv_0")(x.shape[-1])
        second = Weights(16, 5, init, name="Conv_1")(6)
        x = conv_pool_relu(x.astype(self.dtype), (first, second)).reshape(len(x), -1)
        for features in (120, 84):
            x = nn.relu(dense(features, self.dtype, init)(x))
        return dense(self.classes, self.dtype, init)(x)
