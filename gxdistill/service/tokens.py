"""Who may ask: bearer tokens (RFC 6750), of which the server keeps digests alone.

A token is 256 random bits, so that its plain SHA-256 cannot be turned round; a slow hash is for
passwords that people choose.
"""

import dataclasses
import datetime
import hashlib
import hmac
import os
import re
import secrets
from pathlib import Path

from gxdistill import storage
from gxdistill.errors import UserError

_TOKEN = re.compile(r"gxd_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")
_BEARER = re.compile(r"[Bb]earer (\S{1,100})")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}")
_NOBODY = hashlib.sha256(b"").hexdigest()


@dataclasses.dataclass(frozen=True)
class Token:
    """A token as the server keeps it.

    Attributes:
      id: public part of the token, which logs may show.
      name: of whoever has it, for people.
      sha256: of the whole token.
      issued: day, as `2024-05-01`.
    """

    id: str
    name: str
    sha256: str
    issued: str


def is_token(text: str) -> bool:
    """Tells whether a text has the form of a token."""
    return bool(_TOKEN.fullmatch(text))


def read_token(path: Path | None) -> str:
    """Reads a client's token: never from a command line, which others on the machine can see.

    Args:
      path: of its file; None takes the environment's `GXDISTILL_TOKEN`.

    Raises:
      UserError: there is none.
    """
    if path is not None:
        return storage.read_bytes(path, 1000).decode("ascii", "replace").strip()
    token = os.environ.get("GXDISTILL_TOKEN")
    if not token:
        raise UserError(
            "The token is missing. Name its file by --token=FILE, or set GXDISTILL_TOKEN."
        )
    return token


def read(path: Path) -> tuple[Token, ...]:
    """Reads the tokens of a file; none where there is no file.

    Raises:
      UserError: it holds something else.
    """
    if not path.exists():
        return ()
    rows = storage.read_json(path).get("tokens")
    names = [field.name for field in dataclasses.fields(Token)]
    is_sound = isinstance(rows, list) and all(
        isinstance(row, dict)
        and sorted(row) == sorted(names)
        and all(isinstance(value, str) for value in row.values())
        for row in rows
    )
    if not is_sound or not isinstance(rows, list):
        raise UserError(f"{path} holds no tokens. Make the file anew by `gxdistill mixup tokens`.")
    return tuple(Token(**row) for row in rows)


def make(path: Path, name: str) -> str:
    """Makes a token and keeps its digest; the token itself cannot be had again.

    Args:
      path: of the file, which is made if it is not there.
      name: of whoever gets it.

    Returns:
      The token.

    Raises:
      UserError: the name is not one of letters, digits and ` ._-`, or is taken.
    """
    if not _NAME.fullmatch(name):
        raise UserError(
            f"{storage.shown(name)} cannot name a token. Take 1 to 64 letters, digits, spaces or "
            f"`._-`, as --make=hospital-a."
        )
    tokens = read(path)
    if any(token.name == name for token in tokens):
        raise UserError(f"{path} has a token of {name}. Revoke it first, or choose another name.")
    identity = secrets.token_hex(6)
    text = f"gxd_{identity}_{secrets.token_urlsafe(32)}"
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    _write(path, (*tokens, Token(identity, name, _digest(text), today)))
    return text


def revoke(path: Path, name: str) -> None:
    """Removes a token; a server that runs refuses it from its next request on.

    Raises:
      UserError: there is none of this name.
    """
    tokens = read(path)
    kept = tuple(token for token in tokens if token.name != name)
    if len(kept) == len(tokens):
        names = ", ".join(token.name for token in tokens) or "none"
        raise UserError(f"{path} has no token of {storage.shown(name)}; there are: {names}.")
    _write(path, kept)


def _write(path: Path, tokens: tuple[Token, ...]) -> None:
    storage.write_json(path, {"tokens": [dataclasses.asdict(token) for token in tokens]})


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class TokenFile:
    """The tokens of a file, as it is now: one that was revoked is refused at once."""

    def __init__(self, path: Path):
        """Reads the file.

        Raises:
          UserError: as `read`; or there is no token in it.
        """
        self._path = path
        self._seen = self._stamp()
        self._tokens = {token.id: token for token in read(path)}
        if not self._tokens:
            raise UserError(
                f"{path} has no tokens: nobody could ask. Make one by `gxdistill mixup tokens "
                f"--make=NAME`."
            )

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns

    def find(self, header: str | None) -> Token | None:
        """Returns the token that an `Authorization` header bears; None of no valid one.

        A file that can no longer be read lets nobody in.
        """
        stamp = self._stamp()
        if stamp != self._seen:
            self._seen = stamp
            try:
                self._tokens = {token.id: token for token in read(self._path)}
            except UserError:
                self._tokens = {}
        bearer = _BEARER.fullmatch(header or "")
        match = _TOKEN.fullmatch(bearer[1]) if bearer else None
        token = self._tokens.get(match[1]) if match else None
        digest = _digest(match[0] if match else "-")
        is_right = hmac.compare_digest(digest, token.sha256 if token else _NOBODY)
        return token if is_right else None
