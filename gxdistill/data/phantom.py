"""A procedural double-contrast stomach radiograph: a ground truth with no patient behind it.

The standing patient has taken barium and gas. The gas spreads the stomach, a thin coat of barium
shows the relief of its mucosa, and the rest of the barium lies in a pool at the lowest point.
Healthy mucosa lies in folds along the organ's axis. In gastritis the folds thin out or vanish and
coarse areae gastricae take their place, small polygons whose grooves hold barium. That is all the
label changes: both textures have the same amplitude, about the same scale and, by a monotone curve,
the same histogram, so that only their form can tell them apart.

All lengths are shares of the image's side: one key gives one patient at every size.

References:
  Mackintosh and Kreel 1977, Anatomy and radiology of the areae gastricae,
  https://doi.org/10.1136/gut.18.11.855; Kanai et al. 2020, on what such films show of gastritis,
  https://doi.org/10.3748/wjg.v26.i25.3650.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri

from gxdistill import _check
from gxdistill.errors import UserError
from gxdistill.pytrees import Cohort

# What varies from patient to patient, drawn evenly and without regard to the label.
_RANGES = {
    "angle": (-0.14, 0.14),  # of the patient on the film, radians
    "zoom": (0.94, 1.08),
    "shift_x": (-0.03, 0.03),
    "shift_y": (-0.03, 0.03),
    "girth": (0.92, 1.10),  # of the stomach
    "build": (0.50, 0.60),  # half width of the trunk
    "spine": (0.36, 0.42),
    "vertebra": (0.125, 0.150),
    "rib": (0.10, 0.13),
    "lung": (0.02, 0.10),
    "meniscus": (0.06, 0.13),  # depth of the barium pool
    "bubble": (0.75, 1.0),  # gas in the fundus, in radii of the fundus
    "fold_period": (0.025, 0.034),  # 6.4 to 8.7 px of 256, 51 to 70 px of 2048
    "fold_wobble": (0.25, 0.55),
    "relief": (0.050, 0.065),  # amplitude of the mucosa's texture
    "exposure": (0.34, 0.48),
    "contrast": (0.9, 1.25),
    "gamma": (0.85, 1.20),
    "grain": (0.008, 0.022),
    "areae": (-2.3, 2.3),  # share of areae gastricae in the mucosa, in logits
    "marker_left": (0.0, 1.0),
    "marker_low": (0.0, 1.0),
    "marker_x": (0.03, 0.06),
    "marker_y": (0.03, 0.06),
}
# Smooth noise: features across the image's side, and what each field is for.
_NOISES = {
    6: ("patchy",),
    12: ("organs", "outline", "drift", "height"),
    24: ("coat", "wobble"),
    40: ("tissue", "net", "mesh"),
    84: ("fine",),
}

# The J of the stomach, fundus to pylorus: Bezier control points (x, y) and half widths.
_AXIS = np.array(
    [[0.64, 0.20], [0.76, 0.42], [0.76, 0.80], [0.58, 0.95], [0.38, 0.84], [0.22, 0.58]]
)
_RADIUS = np.array([0.140, 0.165, 0.130, 0.130, 0.120, 0.045])
_KNOTS = 64
_COARSE = 64  # the organ's outline is smooth: it is traced on a coarse grid and interpolated

# The share of areae gastricae in the texture, in logits: what gastritis adds and health takes away,
# and how much it varies across one stomach. Together with "areae" above they set the task's
# difficulty.
_SEVERITY = 1.9
_PATCHY = 0.8

_GLYPHS = np.array(
    [
        [[int(bit) for bit in row] for row in glyph.split()]
        for glyph in (
            "11110 10001 10001 11110 10100 10010 10001",
            "10000 10000 10000 10000 10000 10000 11111",
        )
    ],
    np.float32,
)

_Fields = dict[str, jax.Array]


def _look(key: jax.Array) -> _Fields:
    low, high = np.array(list(_RANGES.values()), np.float32).T
    values = jax.random.uniform(key, low.shape, minval=low, maxval=high)
    return dict(zip(_RANGES, values, strict=True))


def _pixels(size: int) -> jax.Array:
    return (jnp.arange(size, dtype=jnp.float32) + 0.5) / size


def _in_patient(look: _Fields, size: int) -> tuple[jax.Array, jax.Array]:
    """Gives the pixels' (x, y) on the patient, undoing rotation, zoom and shift; `[H, W]` each."""
    x = _pixels(size)[None, :] - 0.5 - look["shift_x"]
    y = _pixels(size)[:, None] - 0.5 - look["shift_y"]
    cos, sin = jnp.cos(look["angle"]) / look["zoom"], jnp.sin(look["angle"]) / look["zoom"]
    return x * cos + y * sin + 0.5, y * cos - x * sin + 0.5


def _enlarge(fields: jax.Array, size: int) -> jax.Array:
    # Without antialiasing the value at a point does not depend on the size of the image.
    return jax.image.resize(fields, (len(fields), size, size), "cubic", antialias=False)


def _noises(key: jax.Array, size: int) -> _Fields:
    """Draws fields of smooth noise about 0, of scale 1, by the names in `_NOISES`; `[H, W]`."""
    # One draw for all, and flat: each call of the generator costs half a second of compilation,
    # one for three axes two seconds.
    shape = (sum(map(len, _NOISES.values())), max(_NOISES), max(_NOISES))
    lattices = 1.2 * jax.random.normal(key, (math.prod(shape),)).reshape(shape)
    fields: _Fields = {}
    for cells, names in _NOISES.items():
        some = lattices[len(fields) :][: len(names), :cells, :cells]
        fields.update(zip(names, _enlarge(some, size), strict=True))
    return fields


def _bump(distance: jax.Array, width: jax.Array | float) -> jax.Array:
    return jnp.exp(-jnp.square(distance / width))


def _above(value: jax.Array, softness: float) -> jax.Array:
    return jax.nn.sigmoid(value / softness)


def _sawtooth(value: jax.Array) -> jax.Array:
    return value - jnp.floor(value) - 0.5


def _sum(values: jax.Array, steps: float) -> jax.Array:
    """Sums along the first axis in fixed point, with so many steps to 1.

    A sum of floats depends on the order of its terms, hence on the number of cores.
    """
    return jnp.sum(jnp.round(values * steps).astype(jnp.int32), axis=0) / steps


def _mean(field: jax.Array, inside: jax.Array) -> jax.Array:
    """Averages a field inside the mask, `[]`; its values lie within 64 of 0."""
    columns = _sum(jnp.where(inside, field, 0), 2.0**12) / len(field)
    return _sum(columns, 2.0**12) * len(field) / jnp.sum(inside)


def _trunk(look: _Fields, noise: _Fields, size: int) -> jax.Array:
    """What lies behind the stomach: soft tissue, spine, ribs and lungs; attenuation, `[H, W]`."""
    x, y = _in_patient(look, size)
    across = jnp.abs(x - 0.5) / look["build"]
    body = _above(1 - across - 0.05 * jnp.square(y - 0.5), 0.008)
    thickness = jnp.sqrt(jnp.maximum(1 - jnp.square(across), 0))
    tissue = 0.28 * thickness + 0.02 * noise["organs"] + 0.008 * noise["tissue"]

    off = jnp.abs(x - look["spine"])
    level = _sawtooth(y / look["vertebra"])  # from disc to disc
    column = _above(0.052 + 0.056 * jnp.square(level) - off, 0.004)  # of waisted vertebrae
    bone = 0.11 * _above(0.40 - jnp.abs(level), 0.03) + 0.05 * _bump(jnp.abs(level) - 0.39, 0.04)
    pedicles = 0.05 * _bump(off - 0.034, 0.010) * _bump(level + 0.12, 0.11)
    process = 0.04 * _bump(off, 0.008) * _bump(level - 0.2, 0.14)

    rib = _sawtooth((y - 0.30 * off - 0.5 * jnp.square(off)) / look["rib"])
    ribs = _above(0.14 - jnp.abs(rib), 0.02) * (0.025 + 1.4 * jnp.square(rib))
    ribs = ribs * _above(off - 0.09, 0.02) * _above(0.42 - y, 0.06)
    lungs = 0.16 * _above(look["lung"] + 0.5 * jnp.square(off - 0.25) - y, 0.006)
    return body * (0.16 + tissue + column * bone + pedicles + process + ribs - lungs)


def _stomach(look: _Fields, key: jax.Array, noise: _Fields, size: int) -> _Fields:
    """Traces the organ.

    Returns:
      `depth` below the wall, negative outside; `across`, signed distance from the long axis;
      `fundus`, distance from the centre of the fundus in its radii. Each `[H, W]`.
    """
    t, k = np.linspace(0, 1, _KNOTS)[:, None], np.arange(6)
    bernstein = np.array([1, 5, 10, 10, 5, 1]) * t**k * (1 - t) ** (5 - k)
    axis = _AXIS + jax.random.uniform(key, _AXIS.shape, minval=-0.045, maxval=0.045)
    knots, radius = bernstein @ axis, (bernstein @ _RADIUS * look["girth"])[:, None, None]
    along = jnp.gradient(knots, axis=0)
    along = (along / jnp.linalg.norm(along, axis=1, keepdims=True))[:, :, None, None]

    x, y = _in_patient(look, _COARSE)
    dx, dy = x - knots[:, 0, None, None], y - knots[:, 1, None, None]
    distance = jnp.hypot(dx, dy)
    below = radius - distance
    deepest = jnp.max(below, axis=0)
    nearest = jnp.exp((below - deepest) / 0.01)  # Weights of the knots, of which one is 1.
    weight = _sum(nearest, 2.0**23)
    across = _sum(nearest * (dx * along[:, 1] - dy * along[:, 0]), 2.0**23) / weight
    # Folds draw together where the lumen narrows, though less than it does.
    across = across / jnp.sqrt(_sum(nearest * radius, 2.0**23) / weight / _RADIUS.max())
    coarse = jnp.stack([deepest, across, distance[0] / radius[0]])
    depth, across, fundus = _enlarge(coarse, size)
    return {"depth": depth + 0.005 * noise["outline"], "across": across, "fundus": fundus}


def _standardise(field: jax.Array, inside: jax.Array) -> jax.Array:
    field = field - _mean(field, inside)
    return field / jnp.sqrt(_mean(jnp.square(field), inside))


def _normal_scores(field: jax.Array, inside: jax.Array) -> jax.Array:
    """Bends `field` by the monotone curve that makes its values inside the mask N(0, 1)."""
    knots = np.linspace(-3, 3, 21, dtype=np.float32)
    field = _standardise(field, inside)
    step = max(1, field.shape[0] // 128)  # a few thousand values tell the distribution
    values, inside = field[::step, ::step].ravel(), inside[::step, ::step].ravel()
    below = jnp.sum((values <= knots[:, None]) & inside, axis=1)
    scores = ndtri((below + 0.5) / (jnp.sum(inside) + 1))
    slopes = jnp.diff(scores, prepend=scores[0], append=scores[-1]) / (knots[1] - knots[0])
    # A sum of hinges, not `jnp.interp`: a gather in the film's fused loop triples its time.
    hinges = (b * jnp.maximum(field - k, 0) for b, k in zip(jnp.diff(slopes), knots, strict=True))
    return scores[0] + sum(hinges)


def _mucosa(
    look: _Fields,
    noise: _Fields,
    gastritis: jax.Array | bool,
    *,
    across: jax.Array,
    seen: jax.Array,
) -> jax.Array:
    """The relief that the barium coat shows, N(0, 1) inside `seen` for either label; `[H, W]`."""
    drift = look["fold_wobble"] * (noise["drift"] + 0.5 * noise["wobble"])
    folds = jnp.cos(2 * jnp.pi * (across / look["fold_period"] + drift))
    folds = folds * jnp.exp(0.4 * noise["height"])
    # Zero crossings of smooth noise close into a net, as the grooves between the areae do.
    coarse = -jnp.minimum(jnp.abs(noise["net"]), jnp.abs(noise["mesh"]))
    fine = -jnp.abs(noise["fine"])
    folds, coarse, fine = (_standardise(f, seen) for f in (folds, coarse, fine))
    sick = jnp.where(gastritis, _SEVERITY, -_SEVERITY)
    share = jax.nn.sigmoid(look["areae"] + sick + _PATCHY * noise["patchy"])
    mixed = jnp.sqrt(1 - share) * folds + jnp.sqrt(share) * coarse + 0.4 * fine
    return _normal_scores(mixed, seen)


def _marker(look: _Fields, size: int) -> jax.Array:
    """A lead letter, R or L, in a corner of the film; 1 where the lead is, `[H, W]`."""
    left, low = look["marker_left"] > 0.5, look["marker_low"] > 0.5
    x0 = jnp.where(left, look["marker_x"], 0.955 - look["marker_x"])
    y0 = jnp.where(low, 0.937 - look["marker_y"], look["marker_y"])
    glyph = jnp.where(left, _GLYPHS[0], _GLYPHS[1])
    place = _pixels(size)
    # Products with indicator matrices: a gather here would slow the whole fused film down.
    rows = jnp.floor((place[:, None] - y0) / 0.009) == np.arange(7)
    columns = jnp.floor((place[:, None] - x0) / 0.009) == np.arange(5)
    return rows.astype(jnp.float32) @ glyph @ columns.T


def _contrast(
    look: _Fields, noise: _Fields, stomach: _Fields, gastritis: jax.Array | bool
) -> jax.Array:
    """What barium and gas add: coat, relief, wall and pool; attenuation, `[H, W]`."""
    depth = stomach["depth"]
    organ, inner = depth > 0, jnp.maximum(depth, 0)
    y = _pixels(len(depth))[:, None]
    lowest = jnp.max(jnp.where(organ, y, 0))
    dip = y - (lowest - look["meniscus"])  # level on the film, however the patient leans
    pool = _above(dip, 0.002)
    gas = _above(look["bubble"] - stomach["fundus"], 0.05)

    relief = _mucosa(look, noise, gastritis, across=stomach["across"], seen=organ & (dip < 0))
    relief = look["relief"] * relief * jnp.minimum(inner / 0.008, 1) * (1 - 0.4 * gas)
    coat = organ * (0.06 * jnp.exp(-inner / 0.02) - 0.03 - 0.11 * gas)
    wall = _bump(depth - 0.0035, 0.003) * (0.2 + 0.06 * noise["coat"])
    barium = organ * (1.2 - 0.9 * jnp.exp(-inner / 0.03))
    return coat + (1 - pool) * (relief + wall) + pool * barium


def _expose(look: _Fields, key: jax.Array, attenuation: jax.Array) -> jax.Array:
    """Makes the film: grain, exposure, contrast and a soft shoulder; `[H, W]` uint8."""
    light = attenuation + look["grain"] * jax.random.normal(key, attenuation.shape)
    light = look["exposure"] + look["contrast"] * (light - 0.4)
    light = jnp.where(light < 0.5, light, 1 - 0.5 * jnp.exp(1 - 2 * light))
    return jnp.round(255 * jnp.maximum(light, 0) ** look["gamma"]).astype(jnp.uint8)


@functools.partial(jax.jit, static_argnames="size")
def render(
    key: jax.Array, gastritis: jax.Array | bool, *, size: int = 2048
) -> tuple[jax.Array, jax.Array]:
    """Renders the radiograph of one patient who exists nowhere; jit-able and vmap-able.

    The key alone decides who the patient is: with the other label the same stomach, film and
    grain come back, and only the mucosa's pixels differ.

    Args:
      key: typed PRNG key, `[]`; one patient each.
      gastritis: whether the mucosa is inflamed, `[]` bool.
      size: side of the image in pixels; below 128 the folds can no longer be resolved.

    Returns:
      The image, `[size, size]` uint8, barium white, and the mask of the stomach, pool and gas
      included, `[size, size]` bool.

    Raises:
      ValueError: `size` is not positive.
    """
    _check.positive(size=size)
    look_key, axis_key, noise_key, grain_key = jax.random.split(key, 4)
    look, noise = _look(look_key), _noises(noise_key, size)
    stomach = _stomach(look, axis_key, noise, size)
    attenuation = _trunk(look, noise, size) + _contrast(look, noise, stomach, gastritis)
    attenuation = jnp.maximum(attenuation, 2.0 * _marker(look, size))
    return _expose(look, grain_key, attenuation), stomach["depth"] > 0


@functools.partial(jax.jit, static_argnums=2)
def _render_all(
    keys: jax.Array, gastritis: jax.Array | np.ndarray, size: int
) -> tuple[jax.Array, jax.Array]:
    # One after the other: side by side, hundreds of large images would not fit in memory.
    return jax.lax.map(lambda patient: render(*patient, size=size), (keys, gastritis))


def phantom_cohort(
    seed: int, *, patients: int, size: int = 256, train_share: float = 0.5, sites: int = 2
) -> Cohort:
    """Renders a cohort of phantoms, half of them with gastritis, one image a patient.

    Label, site and split are independent of one another and of everything else in the images.

    Args:
      seed: decides everything about the cohort.
      patients: N, at least 2 in each split.
      size: side of the images in pixels.
      train_share: share of each label's patients in the split "train", rounded.
      sites: number of hospitals, "site-0" and on, with equal shares of each label and split.

    Returns:
      The cohort, in random order; images `[N, size, size, 1]`.

    Raises:
      UserError: a split would be without one of the labels.
      ValueError: a number is out of its range.
    """
    _check.positive(patients=patients, size=size, sites=sites)
    _check.share(train_share=train_share)
    labels, rank = np.arange(patients) % 2, np.arange(patients) // 2  # rank among its label's
    count = np.bincount(labels, minlength=2)
    train = np.round(train_share * count).astype(int)
    if (train < 1).any() or (train >= count).any():
        raise UserError(
            f"{patients} phantom patients with a train share of {train_share} leave a split "
            f"without one of the labels. Ask for more patients, or a share nearer to 0.5."
        )
    order = np.random.default_rng(seed).permutation(patients)
    keys = jax.random.split(jax.random.key(seed), patients)
    images, masks = _render_all(keys, labels[order] == 1, size)
    names = np.array([f"phantom-{i:04d}" for i in range(patients)])
    return Cohort(
        images=np.asarray(images)[..., None],
        masks=np.asarray(masks),
        labels=labels[order].astype(np.int32),
        patients=names,
        sites=np.array([f"site-{i}" for i in rank % sites])[order],
        splits=np.where(rank < train[labels], "train", "test")[order],
        names=names,
        class_names=("irrelevant", "non-gastritis", "gastritis"),
    )
