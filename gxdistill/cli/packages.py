"""The commands on packages alone: no config, no job."""

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from gxdistill.cli import budgets
from gxdistill.cli.flags import Command, Flag, path, share
from gxdistill.errors import UserError
from gxdistill.runtime.console import log

_ROUNDING = 1e-3  # By which another release of dp-accounting may differ.

if TYPE_CHECKING:
    from gxdistill.package import About
    from gxdistill.package.signing import Verified


def _inspect(options: Namespace) -> None:
    from gxdistill import package

    (file,) = options.paths
    if package.is_weights(file):
        print(package.describe_weights(package.load_weights(file), file))
    else:
        print(package.describe(package.load(file), file))


def _verify(options: Namespace) -> None:
    from gxdistill import package

    (file,) = options.paths
    verified = package.verify(file, options.key)
    print(f"{file}: {_proved(verified)}")
    from gxdistill.receive import budget

    for line in budget.outlook(verified.manifest):
        print(line)
    print(f"guarantee: {_recomposed(verified.manifest, file)}")


def _recomposed(manifest: "About", file: Path) -> str:
    """States what a package guarantees, after its ledger was composed anew where that can be done.

    Raises:
      UserError: its ledger claims less than its events come to.
    """
    from importlib.util import find_spec

    from gxdistill import package

    claimed = package.guarantee(manifest.ledger)
    if manifest.ledger is None or manifest.ledger.epsilon is None:
        return claimed
    if find_spec("dp_accounting") is None:
        return f"{claimed}; as the sender says: to compose it anew, install gxdistill[privacy]"
    from gxdistill.privacy.ledger import Ledger

    ledger = Ledger.from_dict(package.to_json(manifest.ledger))
    spent = ledger.epsilon()
    if spent > manifest.ledger.epsilon * (1 + _ROUNDING):
        raise UserError(
            f"{file} claims epsilon {manifest.ledger.epsilon:.4g}, and its ledger comes to "
            f"{spent:.4g}. Ask the sender."
        )
    return f"{claimed}; its events come to that"


def _proved(verified: "Verified") -> str:
    """Says what a verification proved, and what it did not."""
    if verified.signer:
        return f"whole, and unchanged since it was signed with the key {verified.signer}."
    if verified.signed:
        return (
            "whole. It is signed, but by whom was not checked: get the sender's public key on "
            "another way, and give it by --key=PUBLIC.pem."
        )
    return (
        "whole: no part was damaged on its way. It is not signed: who made it, and whether others "
        "changed it on purpose, was not and cannot be proved."
    )


def _sign(options: Namespace) -> None:
    from gxdistill import package

    (file,) = options.paths
    if options.key is None:
        raise UserError(
            "--key is missing. Name your private key, as --key=private.pem; "
            "`openssl genpkey -algorithm ed25519 -out private.pem` makes one."
        )
    print(f"{file}: signed with the key {package.sign(file, options.key)}.")


def _export(options: Namespace) -> None:
    from gxdistill import package

    (file,) = options.paths
    if options.to is None:
        raise UserError(f"--to is missing. Choose one of {', '.join(package.FORMATS)}.")
    whole = package.load(file)
    target = options.out or file.with_name(f"{file.stem}.{options.to}")
    package.export(whole, target, options.to)
    print(target)


def _diff(options: Namespace) -> None:
    from gxdistill import package

    first, second = options.paths
    print(package.diff(package.load(first), package.load(second)))


def _merge(options: Namespace) -> None:
    from gxdistill import package

    target = options.out or Path("merged.gxd").absolute()
    if target.exists():
        raise UserError(f"{target} exists already. Remove it, or choose another place by --out.")
    whole = package.merge([package.load(file) for file in options.paths], target.stem)
    package.save(target, whole)
    print(f"{target}: {len(options.paths)} packages, {package.size_bytes(target)} bytes")


def _migrate(options: Namespace) -> None:
    from gxdistill import package

    (folder,) = options.paths
    target = options.out or folder.with_name(f"{folder.name}.gxd")
    package.convert(folder, target)
    print(target)


def _predict(options: Namespace) -> None:
    from gxdistill import package, storage
    from gxdistill.receive import predicting

    file, *images = options.paths
    target = options.out or Path("predictions").absolute()
    limits = budgets.of(options)
    rows = predicting.predict(
        file,
        images,
        target,
        log,
        masks=options.masks,
        calibration=options.calibration,
        budget=limits,
    )
    for row in rows:
        refused = f"refused: {row['refused']}" if "refused" in row else None
        score = "" if row.get("score") is None else f", score {row['score']:.3f}"
        print(f"{storage.as_text(row['image'])}: {refused or row['decision'] + score}")
    print(f"{target}\n{package.WARNING}")
    if any("refused" in row for row in rows):
        raise UserError("some images were refused, as said above; all others are predicted.")


def _calibrate(options: Namespace) -> None:
    from gxdistill import package, storage
    from gxdistill.receive import calibrating, predicting

    file, *images = options.paths
    target = options.out or Path("calibration.json").absolute()
    result, scored = calibrating.calibrate(
        file,
        images,
        target,
        log,
        masks=options.masks,
        labels=options.labels,
        prevalence=options.prevalence,
        budget=budgets.of(options),
    )
    for name, reason in scored.refused.items():
        print(f"{storage.as_text(name)}: refused: {reason}")
    print(calibrating.as_text(result, scored, predicting.subject_of(file).decision.tau))
    print(f"{target}\n{package.WARNING}")


_PACKAGE = "PACKAGE"
_EXAMPLE = "runs/demo/package.gxd"
_MASKS = Flag("masks", "DIR", "the organ's masks, called as their images, if it asks for", path)

COMMANDS = (
    Command(
        "inspect", "say what is in it", _inspect, arguments=_PACKAGE, example=f"inspect {_EXAMPLE}"
    ),
    Command(
        "verify",
        "check that it is whole, and --key=PUBLIC.pem who signed it",
        _verify,
        (Flag("key", "PUBLIC.pem", "public key of the sender, who must have signed it", path),),
        arguments=_PACKAGE,
        example=f"verify {_EXAMPLE}",
    ),
    Command(
        "sign",
        "sign it with --key=PRIVATE.pem",
        _sign,
        (Flag("key", "PRIVATE.pem", "your private key, of Ed25519", path),),
        arguments=_PACKAGE,
        example=f"sign {_EXAMPLE} --key=private.pem",
    ),
    Command(
        "diff",
        "say what they differ in",
        _diff,
        arguments="PACKAGE PACKAGE",
        example=f"diff {_EXAMPLE} runs/mine/package.gxd",
    ),
    Command(
        "merge",
        "make one package of those that hospitals distilled alone",
        _merge,
        (Flag("out", "FILE", "what to write (default: merged.gxd)", path),),
        arguments="PACKAGE PACKAGE...",
        example="merge a/package.gxd b/package.gxd --out=both.gxd",
    ),
    Command(
        "export",
        "write it for other programs, see --to",
        _export,
        (
            Flag("to", "FORMAT", "one of npz, safetensors, png, pytorch-folder, tfds"),
            Flag("out", "PATH", "what to write (default: beside the package)", path),
        ),
        arguments=_PACKAGE,
        example=f"export {_EXAMPLE} --to=pytorch-folder",
    ),
    Command(
        "predict",
        "decide whole images, or folders of them",
        _predict,
        (
            Flag("out", "DIR", "folder to write (default: predictions)", path),
            _MASKS,
            Flag("calibration", "FILE", "of `calibrate`: its threshold decides", path),
            *budgets.FLAGS,
        ),
        arguments="PACKAGE IMAGE...",
        example=f"predict {_EXAMPLE} FOLDER --out=runs/predictions",
    ),
    Command(
        "calibrate",
        "set a threshold on your own images",
        _calibrate,
        (
            Flag("out", "FILE", "what to write (default: calibration.json)", path),
            _MASKS,
            Flag("labels", "FILE", "CSV of image,label: sets it by these images", path),
            Flag("prevalence", "P", "share of positive images (default: the sender's)", share),
            *budgets.FLAGS,
        ),
        arguments="PACKAGE IMAGE...",
        example=f"calibrate {_EXAMPLE} FOLDER --prevalence=0.3",
    ),
    Command(
        "migrate",
        "write a package of schema version 1 as one of today",
        _migrate,
        (Flag("out", "FILE", "what to write (default: beside the folder)", path),),
        arguments="FOLDER",
        example="migrate runs/old/package --out=runs/old/package.gxd",
    ),
)
