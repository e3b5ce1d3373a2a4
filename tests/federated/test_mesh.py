"""Sites that are shared out over devices end where sites in sequence do."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

_SOURCE = """
import json
import jax
jax.config.update("jax_num_cpu_devices", 4)
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType
from gxdistill.federated import aggregation, local, rounds
from tests.federated import linear

def ends(sum_sites, sites=8):
    training = local.local_training(local.mean_gradient(linear.loss), optax.sgd(0.1), 2)
    loop = rounds.federation(
        training, linear.draw_some, np.arange(1.0, sites + 1),
        server=aggregation.server_optimizer("sgd", 1.0), participation=0.7, sum_sites=sum_sites,
        protection=rounds.Protection(0.3, 0.5),
    )
    state, update = loop.init({"w": jnp.zeros(3)}, jax.random.key(0)), jax.jit(loop.update)
    for _ in range(3):
        state, _ = update(state, linear.sites(sites))
    return np.asarray(state.learned["w"])

mesh = jax.make_mesh((4,), (aggregation.SITE,), (AxisType.Auto,))
alone, shared = ends(aggregation.in_sequence), ends(aggregation.over_mesh(mesh))
try:
    ends(aggregation.over_mesh(mesh), sites=6)
except ValueError as error:
    refusal = str(error)
print(json.dumps([float(abs(alone - shared).max()), float(abs(alone).max()), refusal]))
"""


def test_sites_over_a_mesh_end_where_sites_in_sequence_do():
    command = [sys.executable, "-c", _SOURCE]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    apart, moved, refusal = json.loads(run.stdout)
    assert apart < 1e-5 * moved
    assert refusal.startswith("4 devices cannot share 6 sites evenly")
