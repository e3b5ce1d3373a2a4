import dataclasses

import jax
import jax.numpy as jnp

from gxdistill.package import proof
from tests import toy


def test_a_proof_tells_equal_close_and_other_networks_apart():
    network, shape = toy.network(), toy.SHAPE
    start = network.init(jax.random.key(0))

    def replay(params):
        return jax.tree.map(lambda leaf: leaf * jnp.float32(1.1), params)

    told = proof.prove(network, replay, start, shape)
    same = proof.check(told, network, replay(start), shape)
    assert (same["equal"], same["gap"], same["proven"]) == (True, 0.0, True)
    assert 1e-5 <= told.tolerance < 1e-3
    near = jax.tree.map(lambda leaf: leaf * (1 + 2.0**-23), replay(start))
    verdict = proof.check(told, network, near, shape)
    assert (verdict["equal"], verdict["proven"]) == (False, True)
    assert "the sender's network: logits" in proof.describe(verdict)
    other = proof.check(told, network, start, shape)
    assert (other["equal"], other["proven"]) == (False, False)
    assert proof.describe(other).startswith("NOT the sender's network")
    short = dataclasses.replace(told, logits=tuple(row[:2] for row in told.logits))
    assert "are not comparable" in proof.describe(proof.check(short, network, start, shape))
