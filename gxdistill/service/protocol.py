"""What server and client say to each other: paths, headers, arrays, and how requests are refused.

Arrays travel as safetensors, which are data and never code. Every count in them is bounded before
anything is allocated for it. All limits of the server are in `Limits`.
"""

import dataclasses
import hashlib
import math
import re

import numpy as np

SEGMENT, MODEL, HEALTH, READY, METRICS = "/v1/segment", "/v1/model", "/health", "/ready", "/metrics"
MEDIA_TYPE = "application/vnd.safetensors"
REQUEST_ID = "idempotency-key"  # A draft of the IETF: draft-ietf-httpapi-idempotency-key-header.
EXPECTED_MODEL = "if-match"  # RFC 9110, 13.1.1: the request is refused by another model.
ANSWERED_BY = "etag"

IMAGES, PROBABILITIES = "images", "probabilities"
_HEADER_BYTES = 1024  # Of one tensor: its name, its dtype, five numbers.
_RANK = 4
_ID = re.compile(r"[0-9a-f]{32}")
_DIGEST = re.compile(r'"([0-9a-f]{64})"')


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a server allows; seconds, bytes and counts.

    Attributes:
      handshake_s: until TLS is agreed on.
      header_s: until a request's header is there, and until a quiet connection is closed.
      body_s: until a request's body is there.
      answer_s: until a request that waits for its turn is given up.
      write_s: until a client has taken its answer.
      body_bytes: of one request, where the model's images would not take fewer.
      images: of one request.
      requests_a_minute: of one token; as many may come at once.
      concurrent: requests of one token at a time.
      concurrent_in_all: requests of all tokens at a time.
      remembered_bytes: of answers that are kept for clients that ask again.
      remembered_s: for which they are kept.
    """

    handshake_s: float = 6.0
    header_s: float = 8.0
    body_s: float = 8.0
    answer_s: float = 30.0
    write_s: float = 15.0
    body_bytes: int = 16 << 20
    images: int = 16
    requests_a_minute: float = 6000.0
    concurrent: int = 16
    concurrent_in_all: int = 64
    remembered_bytes: int = 64 << 20
    remembered_s: float = 600.0


@dataclasses.dataclass(frozen=True)
class Served:
    """What a server says of the model that it runs.

    Attributes:
      digest: of the model.
      shape: of an image, `(H, W, C)`.
      classes: names of the labels.
      images: most of one request.
    """

    digest: str
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    images: int


class RefusedError(Exception):
    """A request that is not answered with arrays.

    Attributes:
      status: of HTTP.
      code: for programs.
      message: for people: what is wrong and the way out, without anything of the request's body.
      retry_after: seconds after which the same request may be answered.
    """

    def __init__(self, status: int, code: str, message: str, retry_after: float | None = None):
        super().__init__(f"{status} {code}: {message}")
        self.status, self.code, self.message = status, code, message
        self.retry_after = retry_after


def body_bytes(shape: tuple[int, int, int], images: int) -> int:
    """Returns the most bytes that a body of so many images of a shape may take."""
    return 8 + _HEADER_BYTES + 4 * images * math.prod(shape)


def encode(name: str, array: np.ndarray) -> bytes:
    """Writes one float32 array as safetensors."""
    from safetensors.numpy import save

    return save({name: np.ascontiguousarray(array, np.float32)})


def decode(content: bytes, name: str, shape: tuple[int, int, int], most: int) -> np.ndarray:
    """Reads the one float32 array of a message.

    Args:
      content: as it came, of a bounded size.
      name: that the array must have.
      shape: that each of its parts must have, `[H, W, C]`.
      most: number of parts that there may be.

    Returns:
      `[N, H, W, C]` finite float32, N from 1 to `most`.

    Raises:
      RefusedError: 422, it is anything else.
    """
    if len(content) < 8:
        raise _malformed("the body is shorter than the length of its header")
    # Ahead of the parser, which would build objects for as many tensors as the header names.
    if int.from_bytes(content[:8], "little") > _HEADER_BYTES:
        raise _malformed(f"the header of the arrays takes more than {_HEADER_BYTES} bytes")
    from safetensors import SafetensorError, deserialize

    try:
        tensors = deserialize(content)
    except (SafetensorError, ValueError, OverflowError) as error:
        raise _malformed("the body is not safetensors") from error
    if [tensor[0] for tensor in tensors] != [name]:
        raise _malformed(f"the body must hold just the array {name!r}")
    told = tensors[0][1]
    sides = tuple(told["shape"])
    if told["dtype"] != "F32" or len(sides) != _RANK or sides[1:] != tuple(shape):
        raise _malformed(f"{name} must be float32 of shape [N, {', '.join(map(str, shape))}]")
    if not 1 <= sides[0] <= most:
        raise _malformed(f"{name} must be 1 to {most} in number")
    if len(told["data"]) != 4 * math.prod(sides):  # pragma: no cover - the parser checks it
        raise _malformed("the data is not as long as its shape says")
    array = np.frombuffer(told["data"], "<f4").reshape(sides).astype(np.float32)
    if not np.isfinite(array).all():
        raise _malformed(f"{name} hold NaN or infinity")
    return array


def _malformed(reason: str) -> RefusedError:
    return RefusedError(422, "malformed", f"The request was not understood: {reason}.")


def read_request_id(value: str | None) -> str:
    """Reads the identity that a client gives a request, the same at each attempt.

    Raises:
      RefusedError: 400, it is missing or not 32 hexadecimal digits.
    """
    if value is None or not _ID.fullmatch(value):
        raise RefusedError(
            400,
            "request-id",
            f"Name the request by 32 lower-case hexadecimal digits, {REQUEST_ID}.",
        )
    return value


def read_digest(value: str | None) -> str | None:
    """Reads the digest of the model that a client expects; None where it expects none.

    Raises:
      RefusedError: 400, it is no digest.
    """
    if value is None:
        return None
    match = _DIGEST.fullmatch(value)
    if not match:
        raise RefusedError(
            400, "digest", f"{EXPECTED_MODEL} must be 64 hexadecimal digits in double quotes."
        )
    return match[1]


def quote_digest(digest: str) -> str:
    """Writes a digest as an entity tag."""
    return f'"{digest}"'


def short(identity: str) -> str:
    """Returns what logs say of a request id: enough to tell requests apart, nothing to reuse."""
    return hashlib.sha256(identity.encode()).hexdigest()[:12]
