import json
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from gxdistill.runtime import sharding

ROOT = Path(__file__).parents[2]

# 20 outer steps with 2 networks and 24 real images on each number of devices, and on none named.
_SOURCE = """
import json, sys
import jax
jax.config.update("jax_num_cpu_devices", 8)
import numpy as np
from gxdistill.runtime import sharding
from gxdistill.distill import init, meta_gradient, outer
from gxdistill.training.steps import several_steps
from tests import toy

network, feed = toy.network(), toy.batch(np.random.default_rng(0), 240)
start = init.noise(jax.random.key(0), steps=2, images_per_step=3, shape=toy.SHAPE,
                   num_classes=toy.CLASSES, epochs=2, lr=0.5, rule="raw")

def learned(count):
    mesh = sharding.make_mesh(2, jax.devices()[:count]) if count else None
    step = meta_gradient.after_training(network, rule="raw", networks=2, mesh=mesh)
    adam = outer.optimizer(20, images_lr=0.01, labels_lr=0.01, rates_lr=0.01)
    loop = outer.distiller(step, adam)
    call = several_steps(loop, lambda f, key: toy.draw(f, key, 24), 10)
    where = sharding.replicated(mesh) if count else None
    call = jax.jit(call, in_shardings=where, out_shardings=where, donate_argnums=0)
    state = jax.jit(loop.init, out_shardings=where)(start, jax.random.key(1))
    here = jax.device_put(feed, where) if count else feed
    first = state.learned.images
    for _ in range(2):
        state, _ = call(state, here)
    assert first.is_deleted() and call._cache_size() == 1
    return jax.tree.leaves(jax.tree.map(np.asarray, state.learned))

with toy.quick_compilation():
    alone = learned(0)
    apart = {
        count: max(float(abs(a - b).max()) for a, b in zip(alone, learned(count)))
        for count in map(int, sys.argv[1:])
    }
moved = max(float(abs(a - b).max()) for a, b in zip(alone, jax.tree.leaves(start)))
print(json.dumps({"apart": apart, "moved": moved}))
"""


def _run(source, *arguments):
    command = [sys.executable, "-c", source, *arguments]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize(
    "counts", [["8"], pytest.param(["1", "2", "4", "8"], marks=pytest.mark.slow)]
)
def test_any_number_of_devices_learns_the_same_images(counts):
    found = _run(_SOURCE, *counts)
    assert found["moved"] > 0.05
    assert list(found["apart"]) == counts
    assert max(found["apart"].values()) < 1e-5


@pytest.mark.parametrize(
    ("networks", "devices", "shape"),
    [(4, 8, (4, 2)), (8, 4, (4, 1)), (1, 8, (1, 8)), (6, 4, (2, 2)), (3, 2, (1, 2))],
)
def test_networks_are_shared_out_before_the_batch(networks, devices, shape):
    assert sharding.sides(networks, devices) == shape


def test_a_mesh_names_its_axes():
    mesh = sharding.make_mesh(3, jax.devices()[:1], rows=sharding.PATIENT)
    assert mesh.axis_names == ("network", "patient")
    assert sharding.replicated(mesh).is_fully_replicated


_ROWS = """
import json
import jax
jax.config.update("jax_num_cpu_devices", 8)
import numpy as np
from gxdistill.runtime import sharding

mesh = sharding.make_mesh(2)  # of each four devices, one network and the whole batch
batch = np.arange(24 * 3).reshape(24, 3)
placed = sharding.place_rows(batch[sharding.own_rows(mesh, 24)], mesh, 24)
np.testing.assert_array_equal(placed, batch)
parts = {d.device.id: np.asarray(d.data)[:, 0].tolist() for d in placed.addressable_shards}
print(json.dumps([[parts[d.id] for d in row] for row in mesh.devices]))
"""


def test_a_batch_lies_in_parts_on_the_devices_that_share_it():
    rows = [list(range(0, 72, 3))[part : part + 6] for part in (0, 6, 12, 18)]
    assert _run(_ROWS) == [rows, rows]
