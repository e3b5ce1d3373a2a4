import json
import re
import shutil
import subprocess
import sys
import zlib

import flax.struct
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest

from gxdistill import storage
from gxdistill.errors import UserError
from gxdistill.pytrees import Distilled
from tests.stderr import without_jax_start

DTYPES = [
    *(bool, np.uint8, np.uint16, np.uint32, np.uint64, np.int8, np.int16, np.int32, np.int64),
    *(np.float16, ml_dtypes.bfloat16, np.float32, np.float64),
]


def _any_bits(dtype, shape, seed=0):
    """Every bit pattern may come: NaN with a payload, -0.0, subnormal numbers."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.random.default_rng(seed).integers(0, 256, size, np.uint8)
    if dtype is bool:
        raw %= 2
    return raw.view(dtype).reshape(shape) if size else np.zeros(shape, dtype)


def _bits(array):
    return array.dtype, array.shape, array.tobytes()


def _saved(folder, tree):
    digests = storage.save_arrays(folder, tree)
    return json.loads(json.dumps(digests))  # as they come back from a manifest


def _files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@flax.struct.dataclass
class _State:
    step: jax.Array
    distilled: Distilled
    opt: optax.OptState
    key: jax.Array
    count: int


def _state(seed=0):
    rng = np.random.default_rng(seed)
    distilled = Distilled(
        images=jnp.asarray(rng.normal(size=(2, 3, 4, 4, 1)), jnp.float32),
        labels=jnp.asarray(rng.normal(size=(2, 3, 3)), jnp.float32),
        log_lr=jnp.asarray(rng.normal(size=4), jnp.float32),
    )
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
    opt = optimizer.update(distilled, optimizer.init(distilled))[1]
    return _State(jnp.int32(7), distilled, opt, jax.random.key(seed), 12)


def test_arrays_of_every_dtype_and_shape_come_back_bit_for_bit(tmp_path):
    shapes = {"scalar": (), "empty": (0, 3), "one": (1,), "many": (2, 3, 5)}
    tree = {
        np.dtype(dtype).name: {name: _any_bits(dtype, shape) for name, shape in shapes.items()}
        for dtype in DTYPES
    }
    loaded = storage.load_arrays(tmp_path / "a", _saved(tmp_path / "a", tree))
    assert jax.tree.map(_bits, loaded) == jax.tree.map(_bits, tree)


def test_memory_layout_does_not_matter(tmp_path):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    layouts = {"big": array.astype(">f4"), "fortran": np.asfortranarray(array)}
    layouts["view"] = np.arange(12, dtype=np.float32).reshape(2, 6)[:, ::2] / 2
    loaded = storage.load_arrays(tmp_path / "a", _saved(tmp_path / "a", layouts))
    assert {name: _bits(leaf) for name, leaf in loaded.items()} == dict.fromkeys(
        layouts, _bits(array)
    )


def test_a_training_state_comes_back_as_it_was(tmp_path):
    state = _state(1)
    arrays = storage.load_arrays(tmp_path / "a", _saved(tmp_path / "a", state))
    restored = storage.restore_like(arrays, _state(2), way_out="")
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    assert restored.count == 12
    assert type(restored.count) is int
    assert restored.key.dtype == state.key.dtype
    np.testing.assert_array_equal(
        jax.random.normal(restored.key, 5), jax.random.normal(state.key, 5)
    )
    raw = [x.replace(key=jax.random.key_data(x.key), count=np.int64(0)) for x in (restored, state)]
    assert jax.tree.map(_bits, raw[0]) == jax.tree.map(_bits, raw[1])


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_batches_of_typed_keys_come_back(tmp_path, impl):
    keys = jax.random.split(jax.random.key(3, impl=impl), 2)
    arrays = storage.load_arrays(tmp_path / "a", _saved(tmp_path / "a", {"keys": keys}))
    like = {"keys": jax.random.split(jax.random.key(0, impl=impl), 2)}
    restored = storage.restore_like(arrays, like, way_out="")["keys"]
    assert restored.dtype == keys.dtype
    np.testing.assert_array_equal(jax.random.key_data(restored), jax.random.key_data(keys))


def test_values_go_where_the_likeness_says(tmp_path):
    tree = {"f": 0.1, "i": -3, "b": True, "np": np.float32(0.5), "a": np.ones(2), "j": jnp.ones(2)}
    tree["s"] = jax.device_put(jnp.ones(2), jax.devices()[0])
    arrays = storage.load_arrays(tmp_path / "a", _saved(tmp_path / "a", tree))
    restored = storage.restore_like(arrays, tree, way_out="")
    assert {k: type(v) for k, v in restored.items()} == {k: type(v) for k, v in tree.items()}
    assert jax.tree.map(np.array_equal, restored, tree) == dict.fromkeys(tree, True)
    assert not restored["j"].committed
    assert restored["s"].committed


def test_lists_and_awkward_names_are_kept_apart(tmp_path):
    tree = {"a.b": {"c": 1}, "a": {"b.c": 2, "%2E": 3}, "mlp/~/w": [4, (5,)], "ä ": 6, "..": 7}
    loaded = storage.load_arrays(tmp_path / "a", _saved(tmp_path / "a", tree))
    expected = {**tree, "mlp/~/w": {"0": 4, "1": {"0": 5}}}
    assert jax.tree.map(int, loaded) == expected
    assert storage.restore_like(loaded, tree, way_out="") == tree


def test_orbax_alone_opens_the_folder(tmp_path):
    from orbax.checkpoint import v1 as ocp

    state = {"a": {"b": _any_bits(np.float32, (2, 3))}, "c": _any_bits(ml_dtypes.bfloat16, (4,))}
    storage.save_arrays(tmp_path / "a", state)
    assert jax.tree.map(_bits, ocp.load(tmp_path / "a")) == jax.tree.map(_bits, state)


def test_equal_arrays_give_equal_bytes_in_any_process_and_place(tmp_path):
    def tree():
        rng = np.random.default_rng(0)
        return {"b": [rng.normal(size=(3, 2)), np.zeros(2, np.uint8)], "a": {"x": np.float32(2)}}

    digests = storage.save_arrays(tmp_path / "here", tree())
    other = tmp_path / "quite" / "elsewhere"
    other.parent.mkdir()
    script = f"""
import json
from pathlib import Path
import numpy as np
from gxdistill import storage
rng = np.random.default_rng(0)
tree = {{"b": [rng.normal(size=(3, 2)), np.zeros(2, np.uint8)], "a": {{"x": np.float32(2)}}}}
print(json.dumps(storage.save_arrays(Path({str(other)!r}), tree)))
"""
    command = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert without_jax_start(done.stderr) == ""  # Orbax is quiet
    assert json.loads(done.stdout) == digests
    assert _files(tmp_path / "here") == _files(other)
    assert len(_files(other)) == 9


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    tree = {"w": _any_bits(np.float32, (2, 3)), "v": {"u": _any_bits(np.float32, (2, 3), 1)}}
    folder = tmp_path_factory.mktemp("saved") / "arrays"
    return folder, _saved(folder, tree), tree


@pytest.fixture
def copy(saved, tmp_path):
    """A copy to be harmed, and what it declares."""
    folder, digests, _ = saved
    shutil.copytree(folder, tmp_path / "copy")
    return tmp_path / "copy", json.loads(json.dumps(digests))


def _outcome(folder, digests, tree):
    try:
        loaded = storage.load_arrays(folder, digests)
    except UserError as error:
        return "many lines" if "\n" in str(error) else "refused"
    return "same" if jax.tree.map(_bits, loaded) == jax.tree.map(_bits, tree) else "changed"


def _flip(path, bit):
    raw = bytearray(path.read_bytes())
    raw[bit // 8] ^= 1 << bit % 8
    path.write_bytes(raw)


@pytest.mark.parametrize("share", [0.004, pytest.param(0.2, marks=pytest.mark.slow)])
def test_a_flipped_bit_in_any_file_is_refused_or_without_effect(saved, copy, share):
    rng = np.random.default_rng(0)
    for name, content in _files(saved[0]).items():
        bits = 8 * len(content)
        chosen = rng.permutation(bits)[: max(4, round(share * bits))] if bits else []
        for bit in chosen:
            _flip(copy[0] / name, int(bit))
            allowed = ("refused",) if name.name == "0.0" else ("refused", "same")
            assert _outcome(*copy, saved[2]) in allowed, (name, bit)
            (copy[0] / name).write_bytes(content)


def test_a_file_cut_short_is_refused_or_without_effect(saved, copy):
    for name, content in _files(saved[0]).items():
        for size in {0, len(content) // 2, len(content) - 1} & set(range(len(content))):
            (copy[0] / name).write_bytes(content[:size])
            outcome = _outcome(*copy, saved[2])
            assert outcome == "refused" or name.name == "_CHECKPOINT_METADATA", (name, size)
        (copy[0] / name).write_bytes(content)


def test_a_missing_file_is_refused_or_without_effect(saved, copy):
    for name, content in _files(saved[0]).items():
        (copy[0] / name).unlink()
        allowed = ("refused",) if name.parts[0] == "state" else ("refused", "same")
        assert _outcome(*copy, saved[2]) in allowed, name
        (copy[0] / name).write_bytes(content)


def _refusal(folder, digests, **options):
    with pytest.raises(UserError) as caught:
        storage.load_arrays(folder, digests, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_changed_array_is_named(copy):
    _flip(copy[0] / "state" / "v.u" / "0.0", 17)
    assert "leaf v.u was changed or damaged" in _refusal(*copy)


def test_swapped_arrays_are_refused(copy):
    state = copy[0] / "state"
    for old, new in (("w", "x"), ("v.u", "w"), ("x", "v.u")):
        (state / old).rename(state / new)
    assert "was changed or damaged" in _refusal(*copy)


def test_missing_and_surplus_arrays_are_named(copy):
    folder, digests = copy
    shutil.copytree(folder / "state" / "w", folder / "state" / "x")
    assert "leaf x belongs to no declared array" in _refusal(folder, digests)
    shutil.rmtree(folder / "state" / "x")
    shutil.rmtree(folder / "state" / "w")
    assert "leaf w is missing" in _refusal(folder, digests)
    shutil.rmtree(folder)
    assert "could not be read: No such file" in _refusal(folder, digests)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("shape", [3, 2]),
        ("shape", [10**9, 6]),
        ("chunks", [10**12, 3]),
        ("dtype", "<i4"),
        ("order", "F"),
        ("compressor", {"id": "zlib", "level": 1}),
        ("filters", [{"id": "x"}]),
        ("dimension_separator", "/"),
        ("zarr_format", 3),
    ],
)
def test_a_file_that_is_not_what_is_declared_is_refused_unread(copy, field, value):
    header = copy[0] / "state" / "w" / ".zarray"
    header.write_text(json.dumps({**json.loads(header.read_text()), field: value}))
    if field == "compressor":  # a bomb
        (header.parent / "0.0").write_bytes(zlib.compress(bytes(10**7)))
    assert f"leaf w has {field}" in _refusal(*copy)


def test_a_surplus_of_bytes_is_refused(copy):
    with (copy[0] / "state" / "w" / "0.0").open("ab") as file:
        file.write(b"0")
    assert "leaf w is of 25 bytes where 24 are declared" in _refusal(*copy)


@pytest.mark.parametrize(
    "entry",
    [
        {"shape": [2**63]},
        {"shape": [-1, 3]},
        {"shape": [2.0, 3]},
        {"shape": [True, 3]},
        {"shape": "23"},
        {"shape": 6},
        {"shape": None},
        {"shape": [1] * 33},
        {"dtype": "object"},
        {"dtype": "float128"},
        {"dtype": ["float32"]},
        {"sha256": None},
        "float32",
        None,
    ],
)
def test_an_unsound_declaration_is_refused(copy, entry):
    folder, digests = copy
    digests["w"] = {**digests["w"], **entry} if isinstance(entry, dict) else entry
    assert "leaf 'w' is declared without a sound" in _refusal(folder, digests)


@pytest.mark.parametrize("name", ["", "a..b", "/etc", "../x", "a\nb", ".", "a.", "ä", "%41", "%2e"])
def test_an_unsound_name_is_refused(copy, name):
    folder, digests = copy
    digests[name] = digests["w"]
    assert f"leaf {name!r} is declared without a sound" in _refusal(folder, digests)


@pytest.mark.parametrize("shape", [[2**28 + 1], [2**62, 2**62], [2**28, 2], [0, 2**62]])
def test_an_absurd_size_is_refused_before_anything_is_allocated(copy, shape):
    folder, digests = copy
    digests["w"]["shape"] = shape
    assert "past the 1073741824 bytes allowed" in _refusal(folder, digests)


def test_the_bound_is_on_all_arrays_together(saved):
    assert "leaf v.u is declared as float32 [2, 3]" in _refusal(*saved[:2], max_bytes=23)
    assert "leaf w is declared as float32 [2, 3]" in _refusal(*saved[:2], max_bytes=47)
    storage.load_arrays(*saved[:2], max_bytes=48)


def test_names_within_names_are_refused(copy):
    folder, digests = copy
    digests["w.x"] = digests["w"]
    (folder / "state" / "w.x").mkdir()
    for file in (folder / "state" / "w").iterdir():
        shutil.copy(file, folder / "state" / "w.x")
    assert "leaf 'w.x' is declared without a sound" in _refusal(folder, digests)


@pytest.mark.parametrize(
    ("tree", "reason"),
    [
        (np.ones(3), "A leaf named '' cannot be saved"),
        ({"a": {"": np.ones(3)}}, "A leaf named 'a.' cannot"),
        ({"a": "text"}, "Leaf a is of dtype <U4"),
        ({"a": {"b": np.array([None])}}, "Leaf a.b is of dtype object"),
        ({"a": np.ones(3, complex)}, "Leaf a is of dtype complex128"),
        ({"a": 2**70}, "Leaf a is of dtype object"),
    ],
)
def test_what_is_no_tree_of_arrays_is_not_saved(tmp_path, tree, reason):
    with pytest.raises(ValueError, match=re.escape(reason)):
        storage.save_arrays(tmp_path / "a", tree)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("like", "reason"),
    [
        ({"w": np.ones((2, 3), np.float32)}, "Leaf v.u is not expected in what was saved."),
        (
            {"w": np.ones((3, 2), np.float32), "v": {"u": np.ones((2, 3), np.float32)}},
            "Leaf w was saved as float32 [2, 3], but float32 [3, 2] is expected.",
        ),
        (
            {"w": np.ones((2, 3), np.float32), "v": [np.ones((2, 3), np.float32)]},
            "Leaf v.0 is missing from what was saved.",
        ),
        (
            {"w": np.ones((2, 3), np.int32), "v": {"u": np.ones((2, 3), np.float32)}},
            "Leaf w was saved as float32 [2, 3], but int32 [2, 3] is expected.",
        ),
    ],
)
def test_a_state_of_another_form_is_refused_by_leaf(saved, like, reason):
    loaded = storage.load_arrays(*saved[:2])
    with pytest.raises(UserError) as caught:
        storage.restore_like(loaded, like, way_out="Do this.")
    assert str(caught.value) == f"{reason} Do this."


def test_a_disk_that_fills_while_orbax_writes_is_an_os_error(tmp_path):
    script = f"""
import resource
from pathlib import Path
import numpy as np
from gxdistill.storage import arrays
resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000))
try:
    arrays._orbax_save(Path({str(tmp_path / "a")!r}), {{"a": np.ones(10000)}})
except OSError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "[Errno 27] File too large\n", done.stderr
