"""Trees of arrays on disk, as Orbax checkpoints: the one module that wraps Orbax.

Any JAX program opens them by `ocp.load(folder)`. Two promises come on top that Orbax does not make:
equal arrays give equal bytes, and a changed bit is found.
"""

import functools
import hashlib
import json
import math
import os
import re
import reprlib
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gxdistill.errors import UserError
from gxdistill.pytrees import Params
from gxdistill.runtime.interrupts import held_back
from gxdistill.storage import orbax
from gxdistill.storage.files import fresh_name, parse_json, read_json, reading
from gxdistill.storage.names import child, name_fault, shown

Digests = dict[str, dict[str, Any]]  # Leaf name -> {"shape": [int], "dtype": str, "sha256": str}.

_DTYPES = (
    *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
    *("float16", "bfloat16", "float32", "float64"),
)
# How Zarr 2 says: one chunk, no codec.
_HEADER = {
    "zarr_format": 2,
    "order": "C",
    "dimension_separator": ".",
    "fill_value": None,
    "compressor": None,
    "filters": None,
}
_MAX_HEADER_BYTES = 1 << 14  # Thrice what 32 sides take; parsed, JSON takes 30 times its size.
_NAME = re.compile(r"[\w~% -]+(\.[\w~% -]+)*", re.ASCII)  # What `_part` makes, and no path.
# Beside the leaves: of the checkpoint, of the folder, and of the tree.
_OF_ORBAX = frozenset({"_CHECKPOINT_METADATA", "orbax.checkpoint", "state/_METADATA"})


def _quote(text: str) -> str:
    return urllib.parse.quote(text, safe=" ").replace(".", "%2E")


def _part(key: Any) -> str:
    """Names one step of a key path such that a dot parts the steps and a name is one file name."""
    return _quote(jax.tree_util.keystr((key,), simple=True))


def _is_sound(name: str, others: Mapping[str, Any]) -> bool:
    """Whether a name is one that `_part` makes, and of a leaf, not of a branch."""
    parts = name.split(".")
    parents = {".".join(parts[:i]) for i in range(1, len(parts))}
    quoted = all(_quote(urllib.parse.unquote(part)) == part for part in parts)
    plain = name_fault(name, portable=False) is None
    return plain and bool(_NAME.fullmatch(name)) and quoted and not parents & others.keys()


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _named(tree: Params) -> dict[str, Any]:
    paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    leaves = {".".join(map(_part, path)): leaf for path, leaf in paths}
    for name in leaves:
        if not _NAME.fullmatch(name):
            raise ValueError(f"A leaf named {name!r} cannot be saved. Name every array.")
    return leaves


def _to_numpy(name: str, leaf: Any) -> np.ndarray:
    array = np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)
    if array.dtype.name not in _DTYPES:
        raise ValueError(f"Leaf {name} is of dtype {array.dtype}, which cannot be saved.")
    return array.astype(array.dtype.newbyteorder("="), order="C", copy=False)


def _nest(leaves: Mapping[str, Any], *, unquote: bool = False) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, leaf in leaves.items():
        *parents, last = (urllib.parse.unquote(p) if unquote else p for p in name.split("."))
        functools.reduce(lambda node, part: node.setdefault(part, {}), parents, tree)[last] = leaf
    return tree


def _at(tree: Any, name: str) -> Any:
    return functools.reduce(lambda node, part: node[part], name.split("."), tree)


def _digest(array: np.ndarray) -> str:
    whole = hashlib.sha256(f"{array.dtype.name} {list(array.shape)}\n".encode())
    whole.update(array.reshape(-1).view(np.uint8).data)  # In place: it may be large.
    return whole.hexdigest()


def _reserve(folder: Path, size: int) -> None:
    # Orbax meets a full disk in its threads, which print pages and die late: so find out before.
    probe = fresh_name(folder)
    try:
        probe.write_bytes(bytes(size))
    finally:
        probe.unlink(missing_ok=True)


def _orbax_save(folder: Path, tree: dict[str, Any]) -> None:
    from orbax.checkpoint import v1 as ocp

    context = orbax.context()
    # Plain Zarr 2: one file a leaf of exactly its bytes. OCDBT gives its files random names; and
    # without a codec the size of what is read is known before it is read.
    context.array.saving.use_ocdbt = False
    context.array.saving.use_zarr3 = False
    context.array.saving.use_compression = False
    try:
        # Orbax tells an interrupt at length, from threads that go on.
        with held_back(), orbax.quiet(), context, orbax.alone():
            ocp.save(folder, tree)
    except ValueError as error:
        code = re.search(r"os_error_code='(\d+)'", str(error))  # TensorStore's way to say it
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1]))) from error
    # The path and the time of writing have no place in what must be equal for equal arrays.
    (folder / "commit_success.txt").unlink(missing_ok=True)
    metadata = folder / "_CHECKPOINT_METADATA"
    record = json.loads(metadata.read_text())
    record |= {"init_timestamp_nsecs": 0, "commit_timestamp_nsecs": 0, "performance_metrics": {}}
    metadata.write_text(json.dumps(record, sort_keys=True))


def save_arrays(folder: Path, tree: Params) -> Digests:
    """Saves a tree of arrays as an Orbax checkpoint; equal arrays give equal bytes.

    Costs about 50 ms beside the writing. For use within `fresh_folder`, which makes it one stroke.

    Args:
      folder: where to; must not exist.
      tree: any container of arrays, scalars and typed PRNG keys (saved as their key data).

    Returns:
      Shape, dtype and SHA-256 of each leaf by its name: the keys on its path, percent-encoded and
      joined by dots.

    Raises:
      OSError: the disk is full or the place not writable; `fresh_folder` words it for users.
      ValueError: a dtype that is no number, or an array without a name.
    """
    leaves = {name: _to_numpy(name, leaf) for name, leaf in _named(tree).items()}
    folder = folder.absolute()  # Orbax refuses relative paths
    stored = {name: array for name, array in leaves.items() if array.size}  # and empty arrays
    _reserve(folder, sum(8192 + array.nbytes for array in stored.values()))
    _orbax_save(folder, _nest(stored))
    return {
        name: {"shape": list(array.shape), "dtype": array.dtype.name, "sha256": _digest(array)}
        for name, array in leaves.items()
    }


def _chunk(array: np.ndarray) -> str:
    return ".".join("0" * array.ndim) or "0"


def _declared(folder: Path, digests: Mapping[str, Any], max_bytes: int) -> dict[str, np.ndarray]:
    """Returns arrays of the declared shapes and dtypes that take no memory."""
    total, declared = 0, {}
    for name, entry in digests.items():
        try:
            shape, dtype = entry["shape"], entry["dtype"]
            sound = dtype in _DTYPES and isinstance(entry["sha256"], str) and len(shape) <= 32
            sound = sound and all(type(side) is int and 0 <= side < 2**63 for side in shape)
        except (TypeError, KeyError):
            sound = False
        if not sound or not _is_sound(name, digests):
            raise UserError(
                f"{folder}: leaf {shown(name)} is declared without a sound name, shape, dtype and "
                f"SHA-256. Get a fresh copy."
            )
        total += np.dtype(dtype).itemsize * math.prod(max(side, 1) for side in shape)
        if total > max_bytes:
            raise UserError(
                f"{folder}: leaf {name} is declared as {dtype} {shape}, which takes the arrays "
                f"past the {max_bytes} bytes allowed. Get a fresh copy."
            )
        declared[name] = np.broadcast_to(np.zeros((), dtype), shape)
    return declared


def _check_header(
    header: Mapping[str, Any], expected: Mapping[str, Any], where: Path, what: str
) -> None:
    for field, value in expected.items():
        if header.get(field, "nothing") != value:
            value_there = reprlib.repr(header.get(field, "nothing"))
            raise UserError(
                f"{where}: {what} has {field} {value_there} where {value!r} is declared. "
                f"Get a fresh copy."
            )


def _check_leaf(
    name: str, array: np.ndarray, header: Mapping[str, Any], size: int, where: Path
) -> None:
    """Refuses a leaf whose file does not hold just what is declared."""
    shape = list(array.shape)
    dtype = array.dtype.name if array.dtype.kind == "V" else array.dtype.str
    expected = {"shape": shape, "chunks": shape, "dtype": dtype, **_HEADER}
    _check_header(header, expected, where, f"leaf {name}")
    if size != array.nbytes:
        raise UserError(
            f"{where}: leaf {name} is of {size} bytes where {array.nbytes} are declared. "
            f"Get a fresh copy."
        )


def _check_digests(
    leaves: Mapping[str, np.ndarray], digests: Mapping[str, Any], where: Path
) -> None:
    for name, array in leaves.items():
        if _digest(array) != digests[name]["sha256"]:
            raise UserError(
                f"{where}: leaf {name} was changed or damaged after it was written: its SHA-256 "
                f"does not match. Get a fresh copy."
            )


def _misplaced(where: Path, name: str, declared: Mapping[str, Any]) -> UserError:
    what = "is missing" if name in declared else "belongs to no declared array"
    return UserError(f"{where}: leaf {name} {what}. Get a fresh copy.")


def _check_files(folder: Path, declared: Mapping[str, np.ndarray]) -> None:
    """Refuses files that do not hold just what is declared, before Orbax allocates for them.

    What Orbax itself stumbles upon, it tells late and at length, in threads of its own.
    """
    with reading(folder):
        leaves = {entry.name for entry in os.scandir(folder / "state") if entry.is_dir()}
    for name in sorted(leaves ^ declared.keys()):
        raise _misplaced(folder, name, declared)
    flags = {"use_ocdbt": False, "use_zarr3": False}
    _check_header(read_json(folder / "state" / "_METADATA"), flags, folder, "the tree")
    for name, array in declared.items():
        leaf = child(folder / "state", name, portable=False)
        header = read_json(leaf / ".zarray")
        with reading(leaf):
            size = (leaf / _chunk(array)).stat().st_size
        _check_leaf(name, array, header, size, folder)


def read_arrays(
    files: Mapping[str, bytes | memoryview],
    digests: Mapping[str, Any],
    where: Path,
    *,
    max_bytes: int = 1 << 30,
) -> dict[str, Any]:
    """Reads what `save_arrays` saved from its files' bytes, without Orbax and its parsers.

    For arrays of strangers: nothing but JSON is parsed, and nothing allocated that the files do
    not hold.

    Args:
      files: content by path in the folder of `save_arrays`.
      digests: what `save_arrays` returned.
      where: they come from; for messages.
      max_bytes: the most that the arrays may take in memory.

    Returns:
      As `load_arrays`, but views of the files' bytes: not writable, and not aligned.

    Raises:
      UserError: as `load_arrays`; or there is a file that `save_arrays` does not write.
    """
    declared = _declared(where, digests, max_bytes)
    leaves, expected = dict(declared), set(_OF_ORBAX)
    for name, array in declared.items():
        if not array.size:
            continue
        header, chunk = f"state/{name}/.zarray", f"state/{name}/{_chunk(array)}"
        if not {header, chunk} <= files.keys():
            raise _misplaced(where, name, declared)
        expected |= {header, chunk}
        if len(files[header]) > _MAX_HEADER_BYTES:
            raise UserError(
                f"{where}: {header} is of {len(files[header])} bytes, and {_MAX_HEADER_BYTES} are "
                f"the most. Get a fresh copy."
            )
        header_fields = parse_json(bytes(files[header]), f"{where}: {header}")
        _check_leaf(name, array, header_fields, len(files[chunk]), where)
        leaves[name] = np.frombuffer(files[chunk], array.dtype).reshape(array.shape)
    for file in sorted(files.keys() ^ expected):
        what = "is missing" if file in expected else "belongs to no declared array"
        raise UserError(f"{where}: the arrays' file {file} {what}. Get a fresh copy.")
    _check_digests(leaves, digests, where)
    return _nest(leaves, unquote=True)


def load_arrays(
    folder: Path, digests: Mapping[str, Any], *, max_bytes: int = 1 << 30
) -> dict[str, Any]:
    """Loads what `save_arrays` saved and verifies every bit of it.

    Args:
      folder: where from.
      digests: what `save_arrays` returned; nothing is allocated before it and the files agree.
      max_bytes: the most that the arrays may take in memory.

    Returns:
      Nested dict of `np.ndarray`, keyed by the names of fields, keys and positions, all str.

    Raises:
      UserError: a leaf is missing, too many, of another shape or dtype, cut short or changed; the
        message names it.
    """
    from orbax.checkpoint import v1 as ocp

    folder = folder.absolute()
    declared = _declared(folder, digests, max_bytes)
    stored = {name: array for name, array in declared.items() if array.size}
    leaves = dict(declared)
    if stored:
        _check_files(folder, stored)
        try:
            with held_back(), orbax.quiet(), orbax.context():
                loaded = ocp.load(folder, _nest(stored))
            leaves |= {name: np.asarray(_at(loaded, name)) for name in stored}
        except Exception as error:  # whatever Orbax's parsers stumble upon in damaged files
            raise UserError(
                f"{folder} is damaged: Orbax cannot read it. Get a fresh copy."
            ) from error
    _check_digests(leaves, digests, folder)
    return _nest(leaves, unquote=True)


def _placed(array: np.ndarray, leaf: Any) -> Any:
    if isinstance(leaf, bool | int | float | np.generic):
        return type(leaf)(array[()])
    if not isinstance(leaf, jax.Array):
        return array
    value = jnp.asarray(array)
    if _is_key(leaf):
        value = jax.random.wrap_key_data(value, impl=jax.random.key_impl(leaf))
    # What is on no device of its own moves to wherever the batches are; a committed copy would not.
    return jax.device_put(value, leaf.sharding) if leaf.committed else value


def restore_like(arrays: Mapping[str, Any], like: Params, *, way_out: str) -> Params:
    """Puts loaded arrays into the structure of `like`.

    Args:
      arrays: from `load_arrays`.
      like: a tree of the structure, shapes and dtypes that was saved; its leaves also say where
        the values go: a device, NumPy, a Python number, a typed key.
      way_out: last sentence of the message where they do not fit.

    Returns:
      A tree like `like`.

    Raises:
      UserError: a leaf is missing, too many, or of another shape or dtype; the message names it.
    """
    read, wanted = _named(arrays), _named(like)
    for name in sorted(read.keys() ^ wanted.keys()):
        what = "is missing from" if name in wanted else "is not expected in"
        raise UserError(f"Leaf {name} {what} what was saved. {way_out}")
    for name, leaf in wanted.items():
        array, expected = read[name], _to_numpy(name, leaf)
        if (array.shape, array.dtype) != (expected.shape, expected.dtype):
            raise UserError(
                f"Leaf {name} was saved as {array.dtype} {list(array.shape)}, but "
                f"{expected.dtype} {list(expected.shape)} is expected. {way_out}"
            )
    placed = [_placed(read[name], leaf) for name, leaf in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(like), placed)
