"""The client: asks one server, which it knows by its certificate and by the digest of its model.

Imported only where a client starts: httpx is an extra.
"""

import json
import random
import secrets
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import numpy as np

from gxdistill.errors import UserError
from gxdistill.service import protocol
from gxdistill.service.protocol import Served
from gxdistill.service.tokens import is_token

_AGAIN = (408, 429, 502, 503, 504)  # May be answered later, just as they stand.
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 5.0
_MAX_ANSWER_BYTES = 1 << 28
_MAX_REFUSAL = 500  # Characters of a server's message that are shown.


class Client:
    """Asks a server over TLS; a context manager.

    What the environment says of proxies and authorities is not heeded: where images go is told by
    the arguments alone.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        digest: str | None,
        authority: Path | None = None,
        patience_s: float = 120.0,
        wait: Callable[[float], None] = time.sleep,
    ):
        """Connects to nothing yet.

        Args:
          url: `https://HOST:PORT`.
          token: as the operator made it.
          digest: of the model that alone may answer; None takes any, which is for the operator's
            own tests.
          authority: PEM of the certificate that must have signed the server's; None takes those
            that the system trusts.
          patience_s: for which a request is asked again that was not answered.
          wait: sleeps so many seconds.

        Raises:
          UserError: the URL is not of HTTPS, or the authority cannot be read.
        """
        if not url.startswith("https://"):
            raise UserError(
                f"{url} is not of HTTPS: what is sent could be read on its way. Ask the operator "
                f"for a URL that begins with https://."
            )
        if not is_token(token):
            raise UserError(
                "The token is none: it begins with gxd_ and has 60 characters. Give it as the "
                "operator's `gxdistill mixup tokens` printed it."
            )
        self.url, self.digest = url.rstrip("/"), digest
        self._patience_s, self._wait = patience_s, wait
        self._http = httpx.Client(
            base_url=self.url,
            verify=_tls(authority),
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(60.0, connect=10.0),
            headers={"authorization": f"Bearer {token}", "user-agent": "gxdistill"},
        )

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes its connections."""
        self._http.close()

    def served(self) -> Served:
        """Asks what the server runs.

        Raises:
          UserError: the server is another than the one that is expected, or refuses.
        """
        answer = self._ask(httpx.Request("GET", self.url + protocol.MODEL))
        try:
            table = json.loads(answer.content)
            served = Served(
                str(table["digest"]),
                tuple(map(int, table["shape"])),  # type: ignore[arg-type]
                tuple(map(str, table["classes"])),
                int(table["images"]),
            )
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise UserError(f"{self.url} does not answer as a server of ours.") from error
        self._check_digest(served.digest)
        return served

    def text(self, path: str) -> str:
        """Asks for what the server writes for people and programs, as its metrics.

        Raises:
          UserError: the server refuses, or cannot be reached.
        """
        return self._ask(httpx.Request("GET", self.url + path)).text

    def segment(
        self, images: np.ndarray, classes: int, request_id: str | None = None
    ) -> np.ndarray:
        """Has images segmented; a request that got lost is asked again, and served once.

        Args:
          images: `[N, H, W, C]` float32, N at most what `served` tells.
          classes: K, that the answer must have.
          request_id: 32 hexadecimal digits; None draws them.

        Returns:
          Probabilities, `[N, H, W, K]` float32.

        Raises:
          UserError: the server refuses, cannot be reached for as long as it was to be tried, is
            another than the one that is expected, or gives no probabilities.
        """
        headers = {
            "content-type": protocol.MEDIA_TYPE,
            protocol.REQUEST_ID: request_id or secrets.token_hex(16),
        }
        if self.digest:
            headers[protocol.EXPECTED_MODEL] = protocol.quote_digest(self.digest)
        content = protocol.encode(protocol.IMAGES, images)
        url = self.url + protocol.SEGMENT
        answer = self._ask(httpx.Request("POST", url, headers=headers, content=content))
        self._check_digest(answer.headers.get(protocol.ANSWERED_BY, "").strip('"'))
        shape = (*images.shape[1:3], classes)
        try:
            result = protocol.decode(answer.content, protocol.PROBABILITIES, shape, len(images))
        except protocol.RefusedError as error:
            raise UserError(
                f"{self.url} answered what is no segmentation: {error.message}"
            ) from error
        if len(result) != len(images) or not np.allclose(result.sum(-1), 1, atol=1e-3):
            raise UserError(f"{self.url} answered what are no probabilities. Ask its operator.")
        return result

    def _check_digest(self, digest: str) -> None:
        if self.digest and digest != self.digest:
            raise UserError(
                f"{self.url} runs the model {digest[:64] or 'unknown'}, expected was "
                f"{self.digest}. Nothing more is sent. Ask its operator, and get the "
                f"client's package anew."
            )

    def _ask(self, request: httpx.Request) -> httpx.Response:
        """Asks until there is an answer, or patience ends."""
        request.headers.update(
            {k: v for k, v in self._http.headers.items() if k not in request.headers}
        )
        deadline = time.monotonic() + self._patience_s
        for pause in _pauses():
            try:
                answer = self._send(request)
            except httpx.TransportError as error:
                _check_trust(error, self.url)
                reason: str = type(error).__name__
            else:
                if answer.status_code == 200:
                    return answer
                if answer.status_code not in _AGAIN:
                    raise UserError(f"{self.url} refuses: {_refusal(answer)}")
                reason = _refusal(answer)
                pause = max(pause, _told_to_wait(answer))
            if time.monotonic() + pause > deadline:
                raise UserError(
                    f"{self.url} gave no answer within {self._patience_s:g} s: {reason}. Try "
                    f"later; what was asked is not served twice."
                )
            self._wait(pause)
        raise AssertionError  # The pauses do not end.

    def _send(self, request: httpx.Request) -> httpx.Response:
        answer = self._http.send(request, stream=True)
        try:
            content = bytearray()
            for chunk in answer.iter_raw():
                content += chunk
                if len(content) > _MAX_ANSWER_BYTES:
                    raise UserError(f"{self.url} answers without end. Ask its operator.")
        finally:
            answer.close()
        return httpx.Response(answer.status_code, headers=answer.headers, content=bytes(content))


def _tls(authority: Path | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=None if authority is None else str(authority))
    except (OSError, ssl.SSLError) as error:
        raise UserError(
            f"{authority} cannot be used as the authority of certificates: "
            f"{error.strerror or error}. It must be a PEM file."
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _pauses() -> Iterator[float]:
    """Gives pauses that grow twofold, each drawn from its half on, so that clients part."""
    most = _FIRST_WAIT_S
    while True:
        yield random.uniform(most / 2, most)
        most = min(2 * most, _LONGEST_WAIT_S)


def _check_trust(error: BaseException, url: str) -> None:
    """Refuses a server that TLS does not trust: asking again would not mend it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise UserError(
                f"The certificate of {url} is not to be trusted: {cause.verify_message}. Nothing "
                f"was sent. Name the authority by --authority=CA.pem if the operator has an own."
            ) from error
        if isinstance(cause, ssl.SSLError) and "WRONG_VERSION" in str(cause.reason):
            raise UserError(
                f"{url} does not speak TLS. Nothing was sent. Ask the operator for the right port."
            ) from error
        cause = cause.__cause__ or cause.__context__


def _refusal(answer: httpx.Response) -> str:
    try:
        message = str(json.loads(answer.content)["message"])
    except (ValueError, TypeError, KeyError, RecursionError):
        message = "no reason"
    shown = "".join(char if char.isprintable() else "?" for char in message[:_MAX_REFUSAL])
    return f"{shown} (status {answer.status_code})"


def _told_to_wait(answer: httpx.Response) -> float:
    value = answer.headers.get("retry-after", "")
    return min(float(value), _LONGEST_WAIT_S) if value.isascii() and value.isdigit() else 0.0
