"""The command line: flags, progress and kind failures. Nothing costly is imported for the help."""

import dataclasses
import difflib
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gxdistill.errors import UserError

if TYPE_CHECKING:
    import ml_collections

    from gxdistill.run.job import Job

_USAGE = """gxdistill: distils private radiographs into a handful of synthetic soft-label images.

  gxdistill COMMAND [--config=FILE.py[:VARIANT]] [--config.FIELD=VALUE ...] [--workdir=DIR]

Commands:
{commands}

Flags:
  --config=FILE.py:VARIANT  settings of the job; configs/ holds some, each with a variant `smoke`
  --config.FIELD=VALUE      changes one setting, for example --config.distill.outer_steps=200
  --workdir=DIR             where the job keeps what it makes (default: runs/NAME of the config)
  --package=FILE            the package to train or evaluate (default: WORKDIR/package.gxd)
  --networks=NAME[,...]     train, evaluate: networks of the zoo (lenet, convnet, resnet18) in place
                            of the package's own; evaluate compares several
  --seeds=N                 train, evaluate: number of fresh networks of each kind (default 5)
  --seed=N                  train, evaluate: draws their initial weights (default 0). A package with
                            known initial weights gives its one network unless one of these is given
  --max-loss=POINTS         compress: balanced accuracy over training patches that may be given up
  --weights                 compress: not the package, but a network trained on all real patches,
                            as weights.gxw, which `predict` takes as it takes a package
  --nocompile_cache         compiles everything anew; else what was compiled is kept for the next
                            start, in ~/.cache/gxdistill
"""
_NO_CONFIG = "--config is missing. Name a file, for example --config=configs/demo.py."
_GIVEN = ("seeds", "seed", "max-loss", "weights", "compile_cache")  # Flags taken as they are.


@dataclasses.dataclass(frozen=True)
class _Flags:
    config: "ml_collections.ConfigDict | None"
    workdir: Path
    package: Path
    networks: tuple[str, ...]
    seeds: int | None
    seed: int | None
    max_loss: float | None
    weights: bool
    compile_cache: bool

    @functools.cached_property
    def job(self) -> "Job":
        """Of the config; the stages of a demo share its cohort."""
        from gxdistill.run.job import Job

        if self.config is None:
            raise UserError(_NO_CONFIG)
        return Job(self.config, self.workdir, _say)


class _OnPackages(NamedTuple):
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


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _prepare(flags: _Flags) -> None:
    from gxdistill.run import preparing

    preparing.prepare(flags.job)


def _distill(flags: _Flags) -> None:
    from gxdistill.run import distilling

    distilling.distil(flags.job)


def _compress(flags: _Flags) -> None:
    from gxdistill.run import compressing

    if flags.max_loss is None:
        raise UserError(
            "--max-loss is missing. Say how many points may be lost, as --max-loss=0.2."
        )
    compressing.compress(flags.job, flags.max_loss)


def _train(flags: _Flags) -> None:
    from gxdistill.run import receiving

    if len(flags.networks) > 1:
        raise UserError(
            f"--networks={','.join(flags.networks)} names several; train makes one kind. Name one."
        )
    name = flags.networks[0] if flags.networks else None
    trained = receiving.train_networks(flags.package, count=flags.seeds, seed=flags.seed, name=name)
    receiving.save_networks(flags.workdir / "networks", trained)
    receiving.say_networks(trained, _say)


def _evaluate(flags: _Flags) -> None:
    from gxdistill.run import assessing, receiving

    job, folder = flags.job, flags.workdir / "networks"
    if flags.networks or (flags.seeds, flags.seed) != (None, None):
        trained, *others = receiving.train_each(
            flags.package, flags.networks, count=flags.seeds, seed=flags.seed
        )
        for one in (trained, *others):
            receiving.say_networks(one, _say)
    else:
        if not folder.exists():
            _train(flags)
        trained, others = receiving.load_networks(folder, flags.package), []
    print(assessing.as_text(assessing.evaluate_package(job, flags.package, trained, others)))


def _report(flags: _Flags) -> None:
    from gxdistill import report

    _say(f"report: {report.write(flags.workdir, flags.package)}")


def _demo(flags: _Flags) -> None:
    for stage in (_distill, _train, _evaluate, _report):
        stage(flags)


def _inspect(path: Path) -> None:
    from gxdistill import package

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


_JOBS: dict[str, tuple[Callable[[_Flags], None], str]] = {
    "demo": (_demo, "run the whole job on a built-in cohort of phantoms"),
    "prepare": (_prepare, "check a cohort and write it as a set that is quickly read; resumes"),
    "distill": (_distill, "learn the distilled images and package them; resumes"),
    "train": (_train, "rebuild classifiers from a package alone"),
    "compress": (_compress, "write compressed.gxd: the package in fewer bits, see --max-loss"),
    "evaluate": (_evaluate, "measure classifiers on the test patients, beside baselines"),
    "report": (_report, "write one HTML page with pictures"),
}


def _predict(path: Path, *images: Path, out: str | None) -> None:
    from gxdistill.run import predicting

    target = Path(out or "predictions").absolute()
    rows = predicting.predict(path, images, target, _say)
    for row in rows:
        refused = f"refused: {row['refused']}" if "refused" in row else None
        score = "" if row.get("score") is None else f", score {row['score']:.3f}"
        print(f"{row['image']}: {refused or row['decision'] + score}")
    print(f"{target}\n{predicting.NOTE}")
    if any("refused" in row for row in rows):
        raise UserError("some images were refused, as said above; all others are predicted.")


_ON_PACKAGES = {
    "inspect": _OnPackages(_inspect, "PACKAGE", (), "say what is in it"),
    "verify": _OnPackages(
        _verify, "PACKAGE", ("key",), "check that it is whole, and --key=PUBLIC.pem who signed it"
    ),
    "sign": _OnPackages(_sign, "PACKAGE", ("key",), "sign it with --key=PRIVATE.pem"),
    "diff": _OnPackages(_diff, "PACKAGE PACKAGE", (), "say what they differ in"),
    "export": _OnPackages(
        _export,
        "PACKAGE",
        ("to", "out"),
        "write it, to --out=PATH, --to=npz, safetensors, png, pytorch-folder or tfds",
    ),
    "predict": _OnPackages(
        _predict,
        "PACKAGE IMAGE...",
        ("out",),
        "decide whole images, or folders of them; writes --out=DIR",
    ),
    "migrate": _OnPackages(
        _migrate, "FOLDER", ("out",), "write a package of schema version 1 as one of today"
    ),
}


def _usage() -> str:
    texts = {name: text for name, (_, text) in _JOBS.items()}
    texts |= {name: f"{of.takes}: {of.text}" for name, of in _ON_PACKAGES.items()}
    return _USAGE.format(commands="\n".join(f"  {name:<9} {text}" for name, text in texts.items()))


def _demo_config() -> str:
    return str(Path(__file__).parents[1] / "configs" / "demo.py")


def _config(arguments: list[str], default: str | None) -> "ml_collections.ConfigDict | None":
    """Reads the config of `--config` and its overrides."""
    from absl import flags
    from ml_collections import config_flags

    def read(chosen: list[str]) -> Any:
        values = flags.FlagValues()
        argv = ["gxdistill", *chosen]
        config_flags.DEFINE_config_file("config", default, flag_values=values, sys_argv=argv)
        values(argv)
        return values["config"].value

    file = [argument for argument in arguments if argument.startswith("--config=")]
    try:
        config = read(file)
        known = _fields(config) if hasattr(config, "get_ref") else None  # may raise, too
    except Exception as error:  # the file is the user's code: it may raise anything
        raise UserError(f"{' '.join(file)} cannot be read: {_cause(error)}") from error
    if config is None and not arguments:
        return None
    if not (file or default):
        raise UserError(_NO_CONFIG)
    if known is None:
        raise UserError(
            f"{' '.join(file)} names no file with a function get_config that returns an "
            f"ml_collections.ConfigDict, as configs/demo.py does."
        )
    for argument in arguments:
        field = argument.removeprefix("--").split("=")[0]
        if field.startswith("config.") and field not in known:
            nearest = difflib.get_close_matches(field, known, 1, 0)
            raise UserError(f"unknown setting --{field}. Did you mean --{nearest[0]}?")
    try:
        return read(arguments)
    except (flags.Error, TypeError, ValueError) as error:
        raise UserError(f"a setting has an unfit value: {_cause(error)}") from error


def _cause(error: Exception) -> str:
    # ml_collections puts a whole traceback into a message; what happened is its last line.
    return (str(error).strip() or type(error).__name__).splitlines()[-1].strip()


def _fields(config: Any, prefix: str = "config") -> list[str]:
    names = []
    for key in config:
        names.append(f"{prefix}.{key}")
        value = config.get_ref(key).get()
        if hasattr(value, "get_ref"):
            names += _fields(value, names[-1])
    return names


def _parse(command: str, arguments: list[str]) -> _Flags:
    from absl import flags

    mine = [a for a in arguments if a.partition("=")[0] == "--config" or a.startswith("--config.")]
    config = _config(mine, _demo_config() if command == "demo" else None)
    values = flags.FlagValues()
    for name in ("workdir", "package"):
        flags.DEFINE_string(name, None, "", flag_values=values)
    flags.DEFINE_list("networks", [], "", flag_values=values)
    flags.DEFINE_integer("seeds", None, "", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("seed", None, "", lower_bound=0, upper_bound=2**32 - 1, flag_values=values)
    flags.DEFINE_float("max-loss", None, "", flag_values=values)
    flags.DEFINE_boolean("weights", False, "", flag_values=values)
    flags.DEFINE_boolean("compile_cache", True, "", flag_values=values)
    try:
        rest = values([command, *(a for a in arguments if a not in mine)])[1:]
    except flags.Error as error:
        raise UserError(str(error).splitlines()[0]) from error
    if rest:
        raise UserError(f"unexpected {rest[0]!r}. Flags are written --NAME=VALUE.")
    name = config.get("name", "unnamed") if config else "package"
    workdir = Path(values["workdir"].value or f"runs/{name}").absolute()
    path = Path(values["package"].value or workdir / "package.gxd").absolute()
    given: Any = {name.replace("-", "_"): values[name].value for name in _GIVEN}
    networks: Any = values["networks"].value
    return _Flags(config, workdir, path, tuple(networks), **given)


def _run_on_packages(command: str, arguments: list[str]) -> None:
    run, takes, names, _ = _ON_PACKAGES[command]
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
    run(*paths, **flags)


def _run(command: str, arguments: list[str]) -> None:
    if command in _ON_PACKAGES:
        _run_on_packages(command, arguments)
        return
    flags = _parse(command, arguments)
    from gxdistill.run import compile_cache

    if flags.compile_cache:
        compile_cache.enable(_say)
    else:
        compile_cache.disable()
    _JOBS[command][0](flags)


def main(arguments: list[str] | None = None) -> None:
    """Runs a command; what the user can mend ends in one line and exit status 1."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or {"-h", "--help", "help"} & set(arguments):
        print(_usage())
        return
    command, *rest = arguments
    commands = [*_JOBS, *_ON_PACKAGES]
    if command not in commands:
        nearest = difflib.get_close_matches(command, commands, 1, 0)
        sys.exit(f"gxdistill: unknown command {command!r}. Did you mean {nearest[0]!r}?")
    try:
        _run(command, rest)
    except UserError as error:
        sys.exit(f"gxdistill {command}: {' '.join(str(error).split())}")
    except KeyboardInterrupt:
        _say(f"gxdistill {command}: interrupted; the same command resumes.")
        sys.exit(130)
    except (MemoryError, RuntimeError) as error:
        if "RESOURCE_EXHAUSTED" not in str(error) and not isinstance(error, MemoryError):
            raise
        sys.exit(
            f"gxdistill {command}: the memory does not suffice. Lower distill.batch, "
            f"distill.images_per_step, patch.size or the network's width, or raise data.downscale."
        )
