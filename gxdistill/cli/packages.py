"""The commands on packages alone: no config, no job. Nothing costly is imported for the help."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from gxdistill.errors import UserError
from gxdistill.runtime.console import log


class Command(NamedTuple):
    """A command on packages alone.

    Attributes:
      run: takes a path for each word of `takes`, or more for one with dots, and the flags by name.
      takes: its arguments, in words.
      flags: names of its flags, all texts.
      text: what it does.
    """

    run: Callable[..., None]
    takes: str
    flags: tuple[str, ...]
    text: str


def _inspect(path: Path) -> None:
    from gxdistill import package

    if package.is_weights(path):
        print(package.describe_weights(package.load_weights(path), path))
    else:
        print(package.describe(package.load(path), path))


def _verify(path: Path, *, key: str | None) -> None:
    from gxdistill import package

    signer = package.verify(path, None if key is None else Path(key))
    signed = f"; signed with the key {signer}" if signer else ""
    print(f"{path}: whole and unchanged{signed}.")


def _sign(path: Path, *, key: str | None) -> None:
    from gxdistill import package

    if key is None:
        raise UserError(
            "--key is missing. Name your private key, as --key=private.pem; "
            "`openssl genpkey -algorithm ed25519 -out private.pem` makes one."
        )
    print(f"{path}: signed with the key {package.sign(path, Path(key))}.")


def _export(path: Path, *, to: str | None, out: str | None) -> None:
    from gxdistill import package

    if to is None:
        raise UserError(f"--to is missing. Choose one of {', '.join(package.FORMATS)}.")
    whole = package.load(path)
    target = Path(out).absolute() if out else path.with_name(f"{path.stem}.{to}")
    package.export(whole, target, to)
    print(target)


def _diff(first: Path, second: Path) -> None:
    from gxdistill import package

    print(package.diff(package.load(first), package.load(second)))


def _migrate(folder: Path, *, out: str | None) -> None:
    from gxdistill import package

    target = Path(out).absolute() if out else folder.with_name(f"{folder.name}.gxd")
    package.convert(folder, target)
    print(target)


def _predict(path: Path, *images: Path, out: str | None) -> None:
    from gxdistill import package
    from gxdistill.receive import predicting

    target = Path(out or "predictions").absolute()
    rows = predicting.predict(path, images, target, log)
    for row in rows:
        refused = f"refused: {row['refused']}" if "refused" in row else None
        score = "" if row.get("score") is None else f", score {row['score']:.3f}"
        print(f"{row['image']}: {refused or row['decision'] + score}")
    print(f"{target}\n{package.WARNING}")
    if any("refused" in row for row in rows):
        raise UserError("some images were refused, as said above; all others are predicted.")


COMMANDS = {
    "inspect": Command(_inspect, "PACKAGE", (), "say what is in it"),
    "verify": Command(
        _verify, "PACKAGE", ("key",), "check that it is whole, and --key=PUBLIC.pem who signed it"
    ),
    "sign": Command(_sign, "PACKAGE", ("key",), "sign it with --key=PRIVATE.pem"),
    "diff": Command(_diff, "PACKAGE PACKAGE", (), "say what they differ in"),
    "export": Command(
        _export,
        "PACKAGE",
        ("to", "out"),
        "write it, to --out=PATH, --to=npz, safetensors, png, pytorch-folder or tfds",
    ),
    "predict": Command(
        _predict,
        "PACKAGE IMAGE...",
        ("out",),
        "decide whole images, or folders of them; writes --out=DIR",
    ),
    "migrate": Command(
        _migrate, "FOLDER", ("out",), "write a package of schema version 1 as one of today"
    ),
}


def run(command: str, arguments: list[str]) -> None:
    """Runs one of `COMMANDS`.

    Raises:
      UserError: an argument is missing, too many or unknown, or the command says so.
    """
    call, takes, names, _ = COMMANDS[command]
    paths = [Path(argument).absolute() for argument in arguments if argument[:1] != "-"]
    flags: dict[str, str | None] = dict.fromkeys(names)
    for flag in (argument for argument in arguments if argument[:1] == "-"):
        name, _, value = flag.removeprefix("--").partition("=")
        if name not in flags or not value:
            known = " ".join(f"--{name}=..." for name in names) or "none"
            raise UserError(f"unexpected {flag!r}; flags of this command: {known}.")
        flags[name] = value
    least = len(takes.split())
    if len(paths) < least or (len(paths) > least and not takes.endswith("...")):
        raise UserError(f"name just {takes}, as: gxdistill {command} runs/demo/package.gxd")
    call(*paths, **flags)
