import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gxdistill import models

# Name, options, shape of an image, number of classes.
VARIANTS = [
    ("lenet", {}, (12, 13, 3), 10),
    ("convnet", {"width": 4, "depth": 2}, (8, 9, 3), 3),
    ("convnet", {"width": 4, "depth": 1, "norm": "none"}, (6, 6, 1), 2),
    ("resnet18", {"width": 4, "stages": [1, 1]}, (9, 8, 3), 3),
    ("resnet18", {"width": 4, "stages": (1,)}, (64, 64, 1), 2),  # with the stem of large images
]
N = 3


def _weights(network):
    """Weights from NumPy: without the zeros that hide a branch, and with nothing to compile."""
    rng = np.random.default_rng(0)

    def draw(leaf):
        scale = math.sqrt(math.prod(leaf.shape[:-1]) if len(leaf.shape) > 1 else 4)
        return (rng.normal(size=leaf.shape) / scale).astype(leaf.dtype)

    return jax.tree.map(draw, jax.eval_shape(network.init, jax.random.key(0)))


@pytest.fixture(scope="module", params=VARIANTS, ids=lambda v: f"{v[0]}-{'x'.join(map(str, v[2]))}")
def variant(request):
    name, options, shape, classes = request.param
    network = models.create(name, shape=shape, classes=classes, **options)

    def loss(params, images):
        logits = network.apply(params, images)
        return jnp.sum(jnp.sin(logits)), logits

    return SimpleNamespace(
        row=request.param,
        apply=network.apply,
        program=jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True)),
        params=_weights(network),
        images=np.random.default_rng(1).normal(size=(N, *shape)).astype(np.float32),
    )


def test_logits_and_gradients_are_finite_and_of_their_shape(variant):
    *_, classes = variant.row
    gradients, logits = variant.program(variant.params, variant.images)
    assert (logits.shape, logits.dtype) == ((N, classes), jnp.float32)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((gradients, logits)))
    assert np.ptp(logits, axis=0).min() > 1e-4  # An image makes a difference to every logit,
    assert all(np.abs(image).max() > 1e-6 for image in gradients[1])  # as do its pixels.


def test_each_image_is_judged_by_itself(variant):
    others = variant.images.copy()
    others[1:] = 5 - 2 * others[1:]
    _, logits = variant.program(variant.params, variant.images)
    _, again = variant.program(variant.params, others)
    np.testing.assert_array_equal(again[0], logits[0])
    assert not np.array_equal(again[1], logits[1])


def test_apply_is_pure(variant):
    before = jax.tree.map(np.copy, (variant.params, variant.images))
    _, logits = variant.program(variant.params, variant.images)
    _, again = variant.program(variant.params, variant.images)
    np.testing.assert_array_equal(again, logits)
    jax.tree.map(np.testing.assert_array_equal, (variant.params, variant.images), before)
    assert not jax.make_jaxpr(variant.apply)(variant.params, variant.images).effects


def test_bfloat16_is_near_float32(variant):
    name, options, shape, classes = variant.row
    half = models.create(name, shape=shape, classes=classes, dtype="bfloat16", **options)
    _, logits = variant.program(variant.params, variant.images)
    rough = jax.jit(half.apply)(variant.params, variant.images)
    assert rough.dtype == jnp.float32
    np.testing.assert_allclose(rough, logits, rtol=0, atol=0.1 * np.abs(logits).max())
    assert not np.array_equal(rough, logits)
    drawn = jax.eval_shape(half.init, jax.random.key(0))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(drawn))


def test_float64_adds_up_in_it(variant):
    name, options, shape, classes = variant.row
    _, logits = variant.program(variant.params, variant.images)
    with jax.enable_x64(True):
        exact = models.create(name, shape=shape, classes=classes, dtype="float64", **options)
        wide = jax.tree.map(lambda leaf: leaf.astype(np.float64), (variant.params, variant.images))
        logits_64 = np.asarray(jax.jit(exact.apply)(*wide))
    assert logits_64.dtype == np.float64
    np.testing.assert_allclose(logits, logits_64, rtol=1e-3, atol=1e-4)
    assert not np.array_equal(logits_64, logits_64.astype(np.float32))


def test_init_is_a_function_of_its_key():
    network = models.create("convnet", shape=(6, 6, 1), classes=2, width=4, depth=1)
    init = jax.jit(network.init)
    one, same, other = (init(jax.random.key(seed)) for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, one, same)
    assert not np.array_equal(one["Conv_0"]["kernel"], other["Conv_0"]["kernel"])


def test_a_new_resnet_learns_in_every_layer_from_its_first_step():
    network = models.create("resnet18", shape=(8, 8, 1), classes=3, width=4, stages=(1, 1))
    images = np.random.default_rng(0).normal(size=(5, 8, 8, 1)).astype(np.float32)

    @jax.jit
    def gradient(params):
        return jax.grad(lambda params: jnp.square(network.apply(params, images)).sum())(params)

    for path, leaf in jax.tree.leaves_with_path(gradient(network.init(jax.random.key(0)))):
        # A branch that starts at 0 hides its convolutions.
        assert np.abs(leaf).max() > 0, jax.tree_util.keystr(path)


def _resnet18_count(channels, classes, stem):
    """Adds up He et al.'s table 1: basic blocks of 64, 128, 256 and 512 channels, two of each."""
    count = stem * stem * channels * 64 + 2 * 64
    before = 64
    for width in (64, 128, 256, 512):
        convolutions = 9 * before * width + 3 * 9 * width * width
        shortcut = before * width + 2 * width if width != before else 0
        count += convolutions + 4 * 2 * width + shortcut
        before = width
    return count + 512 * classes + classes


@pytest.mark.parametrize(
    ("name", "options", "shape", "classes", "count"),
    [
        ("lenet", {}, (28, 28, 1), 10, 61_706),  # LeCun et al. 1998
        ("convnet", {}, (32, 32, 3), 10, 320_010),  # Zhao et al. 2020
        ("convnet", {"norm": "group"}, (32, 32, 3), 10, 320_010),
        ("convnet", {"norm": "none"}, (32, 32, 3), 10, 320_010 - 3 * 2 * 128),
        ("convnet", {"depth": 2, "width": 8}, (9, 9, 1), 3, 80 + 584 + 2 * 16 + 32 * 3 + 3),
        ("resnet18", {}, (224, 224, 3), 1000, 11_689_512),  # torchvision
        ("resnet18", {}, (32, 32, 3), 10, 11_173_962),  # the usual variant for CIFAR
        ("resnet18", {}, (299, 299, 1), 3, _resnet18_count(1, 3, stem=7)),
        ("resnet18", {}, (63, 64, 1), 3, _resnet18_count(1, 3, stem=3)),
    ],
)
def test_parameter_counts(name, options, shape, classes, count):
    network = models.create(name, shape=shape, classes=classes, **options)
    drawn = jax.eval_shape(network.init, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(drawn)) == count


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vgg", {}, "`network` is 'vgg'; it must be one of 'lenet', 'convnet', 'resnet18'"),
        ("lenet", {"dtype": "float16"}, "`dtype` is 'float16'"),
        ("lenet", {"dtype": "float64"}, "`dtype` is 'float64'"),
        ("lenet", {"width": 8}, "`option of lenet` is 'width'"),
        ("convnet", {"norm": "batch"}, "`norm` is 'batch'; it must be one of 'instance', 'group'"),
        ("convnet", {"width": 0}, "`width` is 0; it must be greater than 0"),
        ("convnet", {"depth": 4}, "11x30 pixels are too small for convnet, which needs 16"),
        ("lenet", {}, "11x30 pixels are too small for lenet, which needs 12"),
        ("convnet", {"width": 8000}, "this convnet would take 4.29 GiB, over 1 GiB"),
        ("convnet", {"width": 10**12}, "`width` is 1000000000000: no network here is as large"),
        ("convnet", {"depth": 10**9}, "`depth` is 1000000000: no network here is as large"),
        ("resnet18", {"stages": (257,)}, r"`stages` is \(257,\): no network here is as large"),
        ("resnet18", {"stages": [2] * 200}, "no network here is as large"),
        ("resnet18", {"stages": [2, -1]}, "`stages` is -1; it must be greater than 0"),
    ],
)
def test_a_bad_choice_is_refused_when_the_network_is_created(name, options, message):
    with pytest.raises(ValueError, match=message):
        models.create(name, shape=(11, 30, 1), classes=3, **options)


@pytest.mark.parametrize(("name", "side"), [("lenet", 12), ("convnet", 8), ("resnet18", 8)])
def test_the_smallest_image_that_is_allowed_does(name, side):
    network = models.create(name, shape=(side, side, 1), classes=3)
    images = jax.ShapeDtypeStruct((1, side, side, 1), jnp.float32)
    params = jax.eval_shape(network.init, jax.random.key(0))
    assert all(leaf.size > 0 for leaf in jax.tree.leaves(params))
    assert jax.eval_shape(network.apply, params, images).shape == (1, 3)
    with pytest.raises(ValueError, match="too small"):
        models.create(name, shape=(side, side - 1, 1), classes=3)
