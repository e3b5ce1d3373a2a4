import dataclasses
import json
import re

import numpy as np
import pytest

from gxdistill import package
from gxdistill.errors import UserError
from gxdistill.package import precision
from tests.packages import B, C, H, S, change, make, make_rounded, members, repack


def _by_the_page(files, kind):
    """Decodes images value by value, as docs/format.md says."""
    arrays = json.loads(files["manifest.json"])["arrays"]
    raw = {
        name: files[f"arrays/state/{name}/" + ".".join("0" * len(arrays[name]["shape"]))]
        for name in ("images", "scale", "offset")
    }
    scale, offset = (np.frombuffer(raw[name], "<f4") for name in ("scale", "offset"))
    count, values = H * H * C, []
    for image in range(S * B):
        if kind == "uint8":
            codes = list(raw["images"][image * count : (image + 1) * count])
        else:
            size = (count + 1) // 2
            pairs = raw["images"][image * size : (image + 1) * size]
            codes = [half for byte in pairs for half in (byte % 16, byte // 16)][:count]
        values += [offset[image] + scale[image] * np.float32(code) for code in codes]
    return np.array(values, np.float32).reshape(S, B, H, H, C)


@pytest.mark.parametrize("kind", precision.PRECISIONS)
def test_a_rounded_package_comes_back_bit_for_bit(tmp_path, kind):
    made, path = make_rounded(kind), tmp_path / "p.gxd"
    package.save(path, made)
    loaded = package.load(path)
    assert loaded.distilled.images.dtype == np.float32
    np.testing.assert_array_equal(loaded.distilled.images, made.distilled.images)
    if kind in precision.LEVELS:
        expected = _by_the_page(members(path), kind)
        np.testing.assert_array_equal(loaded.distilled.images, expected)
    package.save(tmp_path / "again.gxd", loaded)
    assert (tmp_path / "again.gxd").read_bytes() == path.read_bytes()
    assert f"8 of 8 x 8 x 1, 4 a step, {kind}" in package.describe(loaded, path)


def test_fewer_bits_make_a_smaller_file(tmp_path):
    sizes = []
    for kind in precision.PRECISIONS:
        package.save(tmp_path / kind, make_rounded(kind))
        stored = members(tmp_path / kind)
        sizes.append(
            sum(len(p) for n, p in stored.items() if n.startswith("arrays/state/images/0"))
        )
    count = S * B * H * H * C
    assert sizes == [4 * count, 2 * count, count, count // 2]


@pytest.mark.parametrize("kind", precision.LEVELS)
def test_rounding_moves_a_value_by_half_a_level_at_most(kind):
    images = np.random.default_rng(0).normal(size=(2, 3, 5, 5, 3)).astype(np.float32)
    images[0, 0] = 0.25  # one value: a grid of no height
    grid = precision.spanning(images, kind)
    rounded = precision.round_to(images, kind, grid)
    gap = np.abs(rounded - images).max((2, 3, 4))
    assert (gap <= 0.5001 * grid.scale).all()
    assert (rounded[0, 0] == 0.25).all()
    for image in rounded.reshape(6, -1):
        assert len(np.unique(image)) <= precision.LEVELS[kind]
    np.testing.assert_allclose(rounded.min((2, 3, 4)), images.min((2, 3, 4)), rtol=1e-5)
    np.testing.assert_allclose(rounded.max((2, 3, 4)), images.max((2, 3, 4)), rtol=1e-5)


def test_an_odd_number_of_values_fills_up_the_last_byte():
    images = np.random.default_rng(0).normal(size=(2, 1, 3, 3, 1)).astype(np.float32)
    grid = precision.spanning(images, "uint4")
    images = precision.round_to(images, "uint4", grid)
    arrays = precision.encode(images, "uint4", grid)
    shape, dtype = precision.forms("uint4", images.shape)["images"]
    assert (arrays["images"].shape, arrays["images"].dtype) == (shape, dtype)
    assert shape == (2, 1, 5)
    assert (arrays["images"][..., -1] < 16).all()
    np.testing.assert_array_equal(precision.decode(arrays, "uint4", images.shape)[0], images)


def test_images_that_were_not_rounded_are_not_written(tmp_path):
    made = make_rounded("uint8")
    for wrong in (
        dataclasses.replace(made, distilled=make().distilled),
        dataclasses.replace(made, grid=None),
        dataclasses.replace(make(), grid=made.grid),
        change(make(), precision="bfloat16"),
    ):
        with pytest.raises(ValueError, match=r"do not fit each other|Round them first"):
            package.save(tmp_path / "p.gxd", wrong)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("scale", 0.0, "a scale of the images is not above 0"),
        ("scale", np.nan, "a scale of the images is not above 0"),
        ("scale", np.inf, "hold NaN or infinity"),
        ("scale", 3e38, "images hold NaN or infinity"),
        ("offset", -np.inf, "hold NaN or infinity"),
    ],
)
def test_a_grid_that_gives_no_numbers_is_refused(tmp_path, name, value, reason):
    from gxdistill.storage import arrays

    path = tmp_path / "p.gxd"
    package.save(path, make_rounded("uint8"))

    def harm(files):
        stored = np.frombuffer(files[f"arrays/state/{name}/0.0"], "<f4").copy()
        stored[0] = value
        files[f"arrays/state/{name}/0.0"] = stored.tobytes()
        manifest = json.loads(files["manifest.json"])
        manifest["arrays"][name]["sha256"] = arrays._digest(stored.reshape(S, B))
        files["manifest.json"] = json.dumps(manifest).encode()

    repack(path, harm)
    with pytest.raises(UserError, match=reason):
        package.load(path)


@pytest.mark.parametrize("kind", precision.PRECISIONS)
def test_the_lines_of_the_card_read_the_images(tmp_path, kind, monkeypatch):
    made = make_rounded(kind)
    package.save(tmp_path / "FILE.gxd", made)
    card = members(tmp_path / "FILE.gxd")["README.md"].decode()
    monkeypatch.chdir(tmp_path)
    scope = {}
    exec(re.search(r"```python\n(.*?)```", card, re.S)[1], scope)
    images = scope["images"]
    assert images.shape == (S, B, H * H * C // 2) if kind == "uint4" else (S, B, H, H, C)
    if kind == "bfloat16":
        images = (images.astype("<u4") << 16).view("<f4")
    if kind == "uint4":
        images = np.stack([images % 16, images // 16], -1).reshape(S, B, H, H, C)
    if kind in precision.LEVELS:
        assert "pixel = offset + scale * code" in card
        scale, offset = (part[..., None, None, None] for part in made.grid)
        images = offset + scale * images.astype(np.float32)
    np.testing.assert_array_equal(images, made.distilled.images)
