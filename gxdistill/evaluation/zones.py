"""Whole images decided by zones of the organ: where positive patches lie counts, too.

Readers score a radiograph of the chest zone by zone, for a disease has its places (Ralph et al.,
Thorax 65(10):863, 2010). Here the patches that a network takes for relevant are split into three
rows of equal area and four columns of equal area. Each of the twelve zones says how far positive
outweighs negative in it, and logistic regression, fitted on training images, weighs the zones.
"""

import numpy as np

ROWS, COLUMNS = 3, 4
WEIGHTS = ROWS * COLUMNS + 1  # One of each zone, row by row from the top left; the last is added.
_HALF_A_PATCH = 0.5  # Of either class, so that an empty zone says nothing.
_STRENGTH = 30.0  # Of the ridge, in images.
_SPREAD = 1e-3  # Least of a feature: one that hardly varies must not get a huge weight.
_STEPS = 25  # Of Newton's method, which needs fewer than ten.


def _memberships(relevant: np.ndarray, place: np.ndarray, parts: int) -> np.ndarray:
    """Splits the relevant patches along one axis into parts of equal area.

    Args:
      relevant: `[n, n_patches]` bool.
      place: coordinate of each patch along the axis, `[n_patches]`.
      parts: number of parts.

    Returns:
      How much of each patch lies in each part, `[n, parts, n_patches]` from 0 to 1: patches of one
      coordinate are one line, and a line that crosses a boundary is shared.
    """
    lines, line_of = np.unique(place, return_inverse=True)
    counts = relevant @ np.eye(len(lines))[line_of]  # [n, lines]
    ends = np.cumsum(counts, axis=1)
    edges = ends[:, -1:] * np.arange(parts + 1) / parts  # [n, parts + 1]
    upper = np.minimum(ends[:, None], edges[:, 1:, None])
    lower = np.maximum((ends - counts)[:, None], edges[:, :-1, None])
    shared = np.maximum(upper - lower, 0) / np.maximum(counts, 1)[:, None]
    return shared[:, :, line_of]


def log_odds(probabilities: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Computes log((sum p_P + 1/2) / (sum p_N + 1/2)) in each zone of each image.

    Args:
      probabilities: `[n_images, n_patches, 3]`, of I, N and P.
      corners: of the patches, row and column, `[n_patches, 2]`.

    Returns:
      `[n_images, 12]` float64, row by row from the top left; NaN where every patch is most probably
      irrelevant.
    """
    relevant = probabilities.argmax(axis=2) != 0
    rows, columns = (
        _memberships(relevant, np.asarray(corners)[:, axis], parts)
        for axis, parts in enumerate((ROWS, COLUMNS))
    )
    negative, positive = (
        np.einsum("np,nrp,ncp->nrc", relevant * probabilities[..., name], rows, columns)
        for name in (1, 2)
    )
    odds = np.log((positive + _HALF_A_PATCH) / (negative + _HALF_A_PATCH))
    odds[~relevant.any(axis=1)] = np.nan
    return odds.reshape(len(odds), -1)


def fit(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Fits logistic regression with a ridge, by Newton's method.

    The ridge is on the weights of standardised features, so that no zone counts for more because
    it varies more.

    Args:
      features: `[n, 12]`, finite.
      labels: `[n]`, 0 or 1.

    Returns:
      A weight of each zone, and one that is added, `[13]` float64; zeros where one of the classes
      is absent, so that there is nothing to be told apart.
    """
    if len(np.unique(labels)) < 2:
        return np.zeros(features.shape[1] + 1)
    mean, spread = features.mean(axis=0), np.maximum(features.std(axis=0), _SPREAD)
    inputs = np.hstack([(features - mean) / spread, np.ones((len(features), 1))])
    ridge = _STRENGTH * np.append(np.ones(features.shape[1]), 0.0)
    weights = np.zeros(inputs.shape[1])
    for _ in range(_STEPS):
        chance = _sigmoid(inputs @ weights)
        gradient = inputs.T @ (chance - labels) + ridge * weights
        curvature = (inputs.T * (chance * (1 - chance))) @ inputs + np.diag(ridge)
        weights = weights - np.linalg.solve(curvature, gradient)
    slopes = weights[:-1] / spread
    return np.append(slopes, weights[-1] - slopes @ mean)


def chances(features: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Computes the probability that each image is positive, `[n]`, from 0 to 1; NaN stays NaN."""
    return _sigmoid(features @ weights[:-1] + weights[-1])


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return (1 + np.tanh(logits / 2)) / 2  # An exponential would overflow.
