import os
import random
import re
import shutil
import time
from pathlib import Path

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gxdistill.errors import UserError
from gxdistill.pytrees import Distilled
from gxdistill.storage import checkpoint
from tests import killing

METADATA = {"identity": {"seed": 3, "lr": 0.1, "name": "ä"}, "seen": [1, None]}
OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))


@flax.struct.dataclass
class State:
    step: jax.Array
    distilled: Distilled
    opt: optax.OptState
    key: jax.Array
    mask: np.ndarray
    count: int


def _start(side=4):
    distilled = Distilled(
        images=jnp.zeros((2, 3, side, side, 1)), labels=jnp.ones((2, 3, 3)), log_lr=jnp.zeros(4)
    )
    mask = np.array([1, 0, 255], np.uint8)
    opt = OPTIMIZER.init(distilled)
    return State(jnp.int32(0), distilled, opt, jax.random.key(5), mask, 0)


@jax.jit
def _update(state):
    key = jax.random.fold_in(state.key, state.step)
    keys = jax.random.split(key, len(jax.tree.leaves(state.distilled)))
    keys = jax.tree.unflatten(jax.tree.structure(state.distilled), list(keys))
    grads = jax.tree.map(lambda k, a: jax.random.normal(k, a.shape), keys, state.distilled)
    updates, opt = OPTIMIZER.update(grads, state.opt, state.distilled)
    distilled = optax.apply_updates(state.distilled, updates)
    return state.replace(step=state.step + 1, distilled=distilled, opt=opt)


def run(folder, steps):
    """A training run that resumes where it was interrupted."""
    restored = checkpoint.restore(folder, _start())
    first, state = (0, _start()) if restored is None else restored[:2]
    for step in range(first, steps):
        state = _update(state).replace(count=step + 1)
        checkpoint.save(folder, step + 1, state, metadata=METADATA)
    return state


def _bits(state):
    state = state.replace(key=jax.random.key_data(state.key))
    return [(np.asarray(leaf).dtype, np.asarray(leaf).tobytes()) for leaf in jax.tree.leaves(state)]


def _files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A run of 4 steps: its folder and the state after each."""
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    return folder, [run(folder, steps) for steps in range(5)]


@pytest.fixture
def folder(uninterrupted, tmp_path):
    """A copy to be harmed; holds the checkpoints of steps 3 and 4."""
    return Path(shutil.copytree(uninterrupted[0], tmp_path / "checkpoints"))


def test_without_checkpoints_there_is_nothing_to_restore(tmp_path):
    assert checkpoint.restore(tmp_path / "none", _start()) is None
    assert checkpoint.restore(tmp_path, _start()) is None
    assert not (tmp_path / "none").exists()


def test_a_state_comes_back_bit_for_bit(uninterrupted, folder):
    states = uninterrupted[1]
    step, state, metadata = checkpoint.restore(folder, _start())
    assert step == 4
    assert metadata == METADATA
    assert jax.tree.structure(state) == jax.tree.structure(states[4])
    assert _bits(state) == _bits(states[4])
    assert state.count == 4
    assert isinstance(state.mask, np.ndarray)
    assert state.key.dtype == states[4].key.dtype


def test_a_run_resumed_at_each_step_ends_as_the_uninterrupted_one(uninterrupted, tmp_path):
    whole, states = uninterrupted
    for stop in range(1, 4):
        folder = tmp_path / str(stop)
        run(folder, stop)
        assert _bits(run(folder, 4)) == _bits(states[4])
        assert _files(folder) == _files(whole)


def test_only_the_newest_stay(tmp_path):
    for step in (0, 5, 10, 15):
        checkpoint.save(tmp_path, step, {"a": np.float32(step)}, metadata={}, keep=3)
    assert sorted(os.listdir(tmp_path)) == ["step_00000005", "step_00000010", "step_00000015"]
    checkpoint.save(tmp_path, 20, {"a": np.float32(20)}, metadata={}, keep=1)
    assert os.listdir(tmp_path) == ["step_00000020"]


def _flip(file):
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 4
    file.write_bytes(raw)


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: _flip(path / "arrays/state/distilled.images/0.0.0.0.0"),
        lambda path: _flip(path / "checkpoint.json"),
        lambda path: (path / "checkpoint.json").unlink(),
        lambda path: (path / "arrays/state/key/0").unlink(),
        lambda path: shutil.rmtree(path / "arrays/state/opt.1.0.mu.labels"),
        lambda path: shutil.rmtree(path / "arrays"),
        lambda path: (shutil.rmtree(path), path.mkdir()),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(uninterrupted, folder, harm, caplog):
    harm(folder / "step_00000004")
    step, state, _ = checkpoint.restore(folder, _start())
    assert step == 3
    assert _bits(state) == _bits(uninterrupted[1][3])
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "Passing over the checkpoint of step 4: " in record.getMessage()
    assert _bits(run(folder, 4)) == _bits(uninterrupted[1][4])
    assert _files(folder) == _files(uninterrupted[0])


def test_when_all_are_damaged_there_is_nothing_to_restore(folder, caplog):
    for path in folder.iterdir():
        _flip(path / "checkpoint.json")
    assert checkpoint.restore(folder, _start()) is None
    assert len(caplog.records) == 2


def test_damaged_later_checkpoints_do_not_push_out_whole_ones(folder):
    shutil.rmtree(folder / "step_00000004" / "arrays")
    checkpoint.save(folder, 3, _start(), metadata={}, keep=1)
    assert os.listdir(folder) == ["step_00000003"]
    assert checkpoint.restore(folder, _start())[0] == 3


@pytest.mark.parametrize(
    ("like", "reason"),
    [
        (lambda: _start(8), "Leaf distilled.images was saved as float32 [2, 3, 4, 4, 1], but "),
        (lambda: _start().replace(opt=()), "Leaf opt.1.0.count is not expected in"),
        (lambda: _start().replace(mask=[np.ones(3)]), "Leaf mask is not expected in"),
        (lambda: _start().replace(key=jax.random.key(0, impl="rbg")), "but uint32 [4] is expected"),
    ],
)
def test_a_state_of_another_form_is_refused(folder, like, reason):
    before = _files(folder)
    with pytest.raises(UserError, match=re.escape(reason)) as caught:
        checkpoint.restore(folder, like())
    assert str(caught.value).endswith("choose a fresh working folder.")
    assert _files(folder) == before


def test_what_killed_writers_left_is_mended(uninterrupted, folder):
    shutil.copytree(folder / "step_00000004", folder / ".step_00000005.gx-tmp-0123abcd")
    (folder / "step_00000004").rename(folder / ".step_00000004.gx-old")
    assert checkpoint.restore(folder, _start())[0] == 4
    assert _files(folder) == _files(uninterrupted[0])


def test_other_files_are_left_alone(folder):
    for name in ("step_7", "step_00000009.zip", "notes"):
        (folder / name).write_text("mine")
    checkpoint.save(folder, 5, _start(), metadata={}, keep=1)
    assert checkpoint.restore(folder, _start())[0] == 5
    assert sorted(os.listdir(folder)) == ["notes", "step_00000005", "step_00000009.zip", "step_7"]


@pytest.mark.parametrize(("step", "keep"), [(-1, 2), (3, 0)])
def test_wrong_arguments_are_refused(tmp_path, step, keep):
    with pytest.raises(ValueError, match="must be"):
        checkpoint.save(tmp_path, step, {"a": 1}, metadata={}, keep=keep)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_hold_checkpoints_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="is a file and no folder"):
        checkpoint.save(tmp_path / "file", 1, {"a": 1}, metadata={})


def _newest(folder):
    return max((int(path.name[5:]) for path in folder.glob("step_*")), default=0)


@pytest.mark.parametrize("steps", [9, pytest.param(120, marks=pytest.mark.slow)])
def test_a_run_killed_again_and_again_ends_as_the_uninterrupted_one(tmp_path, steps):
    folder, rng = tmp_path / "checkpoints", random.Random(1)
    source = f"""
from pathlib import Path
from orbax.checkpoint import v1
from tests.storage import test_checkpoint

def work():
    test_checkpoint.run(Path({str(folder)!r}), {steps})
"""
    deaths, last = 0, 0
    with killing.writers(source) as start:
        while last < steps:
            pid = start()
            while killing.is_alive(pid) and _newest(folder) < last + 2:
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.1))
            deaths += killing.is_alive(pid)
            killing.kill(pid)
            step = checkpoint.restore(folder, _start())[0]
            assert step >= min(last + 2, steps)  # nothing that was saved is lost
            last = step
    assert deaths >= 2
    run(tmp_path / "whole", steps)
    assert _files(folder) == _files(tmp_path / "whole")
