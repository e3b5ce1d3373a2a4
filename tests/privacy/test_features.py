import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gxdistill.privacy import features, prior

KINDS = tuple(features.KINDS)


@pytest.fixture(scope="module")
def images():
    """Random images, smooth ones, and those that strain a bound: flat, and as steep as can be."""
    rng = np.random.default_rng(0)
    noise = rng.random((6, 12, 12, 1), np.float32)
    steep = np.indices((12, 12)).sum(axis=0)[None, ..., None] % 2
    flat = [np.zeros((1, 12, 12, 1)), np.ones((1, 12, 12, 1))]
    smooth = prior.smooth_noise(jax.random.key(1), 6, (12, 12, 1))
    return jnp.asarray(np.concatenate([noise, smooth, steep, *flat]), jnp.float32)


def by_direction(image, cell, bins, shift):
    """Sums edges by direction, a pixel at a time."""
    rows = (len(image) - shift) // cell
    sums = np.zeros((rows, rows, bins))
    for i in range(rows * cell):
        for j in range(rows * cell):
            y, x = i + shift, j + shift
            dy = image[y + 1, x] - image[y - 1, x] if 0 < y < len(image) - 1 else 0
            dx = image[y, x + 1] - image[y, x - 1] if 0 < x < len(image) - 1 else 0
            strength = np.sqrt(dy**2 + dx**2 + 1e-4)
            for b in range(bins):
                angle = 2 * np.pi * b / bins
                cosine = max(0, dy * np.sin(angle) + dx * np.cos(angle)) / strength
                sums[i // cell, j // cell, b] += cosine**4 * strength
    return np.sqrt(sums.ravel() + 1e-6)


def test_oriented_gradients_equal_a_loop_over_pixels(images):
    ours = features.oriented_gradients(images[:3], 4, 6)
    for values, image in zip(ours, np.asarray(images[:3, ..., 0], np.float64), strict=True):
        loop = np.concatenate([by_direction(image, 4, 6, shift) for shift in (0, 2)])
        np.testing.assert_allclose(values, loop, rtol=2e-4, atol=2e-5)


def test_cell_moments_equal_a_loop_over_cells(images):
    image = np.asarray(images[0, ..., 0], np.float64)
    padded_rows, padded_columns = np.zeros((12, 12)), np.zeros((12, 12))
    padded_rows[1:-1], padded_columns[:, 1:-1] = (
        image[2:] - image[:-2],
        image[:, 2:] - image[:, :-2],
    )
    edges = 2 * np.hypot(padded_rows, padded_columns)
    loop = [
        [plane[i : i + 4, j : j + 4].mean() for plane in (image, edges, image**2)]
        for i in (0, 4, 8)
        for j in (0, 4, 8)
    ]
    ours = features.cell_moments(images[:1], 4)[0]
    np.testing.assert_allclose(ours, np.ravel(loop), atol=2e-3)  # edges of 0 have a root of 1e-6


def test_random_convolutions_equal_a_loop_over_pixels(images):
    key = jax.random.key(3)
    kernels = np.asarray(jax.random.normal(key, (5, 5, 1, 2)), np.float64)
    kernels -= kernels.mean(axis=(0, 1, 2))
    kernels /= np.sqrt((kernels**2).sum(axis=(0, 1, 2)))
    image = np.pad(np.asarray(images[0, ..., 0], np.float64), 2)
    sums = np.zeros((2, 2, 4))
    for i in range(12):
        for j in range(12):
            for f in range(2):
                response = (image[i : i + 5, j : j + 5] * kernels[:, :, 0, f]).sum()
                sums[i // 6, j // 6, f + 2 * (response < 0)] += abs(response)
    ours = features.random_convolutions(images[:1], key, 2, 6)[0]
    np.testing.assert_allclose(ours, np.sqrt(sums.ravel() + 1e-6), rtol=1e-4)


def convolved(plane, wavelet):
    """Convolves periodically, pixel by pixel, with a wavelet told by its transfer function."""
    kernel, result = np.fft.ifft2(wavelet), np.zeros(plane.shape, complex)
    for i, j in np.ndindex(*plane.shape):
        result += kernel[i, j] * np.roll(plane, (i, j), (0, 1))
    return result


def test_scattering_equals_convolutions_pixel_by_pixel(images):
    plane = np.pad(np.asarray(images[0, ..., 0], np.float64), 2, mode="edge")
    fine, coarse = (features._wavelets(16, 16, scale, 2) for scale in (0, 1))
    layers = [plane, *(abs(convolved(plane, wavelet)) for wavelet in coarse)]
    for wavelet in fine:
        first = abs(convolved(plane, wavelet))
        layers += [first, *(abs(convolved(first, second)) for second in coarse)]
    loop = []
    for layer in layers:
        for y in (3.5, 7.5, 11.5):
            for x in (3.5, 7.5, 11.5):
                rows = np.exp(-((np.arange(16) - y) ** 2) / (2 * 1.6**2))
                columns = np.exp(-((np.arange(16) - x) ** 2) / (2 * 1.6**2))
                window = np.outer(rows, columns)
                loop.append((window * layer).sum() / window.sum())
    np.testing.assert_allclose(features.scattering(images[:1], 2)[0], loop, atol=1e-5)


@pytest.mark.parametrize("scale", [0, 1])
def test_wavelets_have_mean_0_and_answer_to_their_own_frequency_most(scale):
    wavelets = features._wavelets(32, 32, scale, 4)
    assert np.abs(wavelets[:, 0, 0]).max() < 1e-6  # so that brightness is no edge
    frequency = 2 * np.pi * np.fft.fftfreq(32)
    row, column = np.unravel_index(wavelets[0].argmax(), (32, 32))
    assert row == 0
    assert abs(frequency[column] - 0.75 * np.pi / 2**scale) < 2 * np.pi / 32


@pytest.mark.parametrize("kind", KINDS)
def test_features_are_1_long_at_most_and_the_same_each_time(kind, images):
    make = {"shape": (12, 12, 1), "prior": "smooth_noise", "count": 20, "pixels": 15, "drawn": 200}
    described = features.create(kind, **make)
    vectors, coordinates = described.describe(images), described.pixels(images)
    assert vectors.shape == (len(images), 20)
    assert coordinates.shape == (len(images), 15)
    for bounded in (vectors, coordinates):
        lengths = np.linalg.norm(np.asarray(bounded, np.float64), axis=1)
        assert lengths.max() <= 1
        assert lengths.max() > 0.9  # The bound is no slack one: noise is fitted to it.
    again = features.create(kind, **make)
    np.testing.assert_array_equal(vectors, again.describe(images))


def test_images_within_the_directions_come_back():
    described = features.create(
        "cell_moments", shape=(12, 12, 1), prior="smooth_noise", count=5, pixels=144, drawn=200
    )
    smooth = prior.smooth_noise(jax.random.key(5), 20, (12, 12, 1))
    coordinates = described.pixels(smooth)
    short = np.linalg.norm(coordinates, axis=1) < 0.99  # those not cut
    assert short.sum() >= 10
    back = described.pixels.back(coordinates)
    np.testing.assert_allclose(back[short], smooth[short], atol=2e-3)


def test_whitened_coordinates_of_the_prior_are_uncorrelated():
    rng = np.random.default_rng(0)
    vectors = jnp.asarray(rng.normal(size=(500, 4)) @ rng.normal(size=(4, 4)), jnp.float32)
    white = features.principal(vectors, 4, 1.0)(vectors)
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(4), atol=0.05)
    plain = features.principal(vectors, 4, 0.0)(vectors)
    np.testing.assert_allclose(
        jnp.linalg.norm(plain, axis=1),
        jnp.linalg.norm(vectors - vectors.mean(axis=0), axis=1),
        rtol=1e-4,
    )


@pytest.mark.parametrize("draw", prior.PRIORS.values(), ids=tuple(prior.PRIORS))
def test_images_of_no_patient_differ_and_are_from_0_to_1(draw):
    images = np.asarray(draw(jax.random.key(0), 30, (16, 20, 2)))
    assert images.shape == (30, 16, 20, 2)
    assert images.min() >= 0
    assert images.max() <= 1
    assert np.isfinite(images).all()
    flat = images.reshape(30, -1)
    assert np.linalg.norm(flat[:, None] - flat, axis=2)[~np.eye(30, dtype=bool)].min() > 0.5


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"kind": "sift"}, "sift"),
        ({"prior": "photographs"}, "photographs"),
        ({"count": 0}, "count"),
        ({"kind": "oriented_gradients", "cell": 13}, "cell of 13"),
    ],
)
def test_features_that_cannot_be_made_are_refused(change, says):
    arguments = {"kind": "cell_moments", "prior": "smooth_noise", "count": 5, "pixels": 5} | change
    with pytest.raises(ValueError, match=says):
        features.create(arguments.pop("kind"), shape=(12, 12, 1), **arguments)
