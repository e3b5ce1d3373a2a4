"""The job that a command works on: its config, by file or by name, and the files it keeps."""

import argparse
import contextlib
import dataclasses
import difflib
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gxdistill.cli.flags import Command, Flag, path
from gxdistill.errors import UserError
from gxdistill.runtime.console import log

if TYPE_CHECKING:
    import ml_collections

    from gxdistill.jobs.job import Job
    from gxdistill.jobs.settings import Setting

CONFIG = Flag(
    "config",
    "CONFIG",
    "settings of the job: a file, or the name of a config that comes along, with :VARIANT for one "
    "of its variants, as demo:smoke or configs/demo.py:smoke. --config.FIELD=VALUE changes a "
    "setting, as --config.distill.outer_steps=200",
    str,
    has_fields=True,
)
WORKDIR = Flag(
    "workdir", "DIR", "where the job keeps what it makes (default: runs/NAME of the config)", path
)
PACKAGE = Flag("package", "FILE", "the package (default: WORKDIR/package.gxd)", path)
COMPILE_ANEW = Flag(
    "no-compile-cache",
    "",
    "compiles everything anew; else what was compiled is kept for the next start, in "
    "~/.cache/gxdistill",
)


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a command on a job works on.

    Attributes:
      config: of the job, with the settings that flags change; None where no flag names one.
      workdir: where the job keeps what it makes.
      package: its package, which need not be there yet.
    """

    config: "ml_collections.ConfigDict | None"
    workdir: Path
    package: Path

    @functools.cached_property
    def job(self) -> "Job":
        """Of the config; stages that run in one command share its cohort."""
        from gxdistill.jobs.job import Job
        from gxdistill.jobs.workdir import Workdir

        return Job(self.required_config, Workdir(self.workdir), log)

    @property
    def required_config(self) -> "ml_collections.ConfigDict":
        """The config, for a command that cannot do without."""
        if self.config is None:
            raise UserError(_missing())
        return self.config


def job_command(
    name: str,
    summary: str,
    run: Callable[[argparse.Namespace, Inputs], None],
    *,
    flags: tuple[Flag, ...] = (),
    default: str | None = None,
    writes: bool = True,
    **about: str,
) -> Command:
    """Makes a command on a job: with its config, its working folder and compiled programs.

    Args:
      name: of the command.
      summary: what it does, in a line.
      run: takes the values of the flags, and what they name.
      flags: of the command, beside those of every job.
      default: the config where none is named.
      writes: into the working folder, from which other processes are kept out meanwhile.
      **about: other attributes of the command.
    """

    def prepare_and_run(options: argparse.Namespace) -> None:
        inputs = read_inputs(options, default)
        from gxdistill.runtime import compile_cache

        if options.no_compile_cache:
            compile_cache.disable()
        else:
            compile_cache.enable(log)
        from gxdistill.jobs.workdir import Workdir

        alone = Workdir(inputs.workdir).locked(f"gxdistill {name}")
        with alone if writes else contextlib.nullcontext():
            run(options, inputs)

    return Command(name, summary, prepare_and_run, (CONFIG, WORKDIR, *flags, COMPILE_ANEW), **about)


def read_inputs(options: argparse.Namespace, default: str | None = None) -> Inputs:
    """Reads the config that flags name, and says where the job's files are.

    Raises:
      UserError: the config cannot be read, or a setting is unknown or has an unfit value.
    """
    config = read(options.config, options.fields, default)
    name = config.get("name", "unnamed") if config else "package"
    workdir = options.workdir or Path("runs", name).absolute()
    package = getattr(options, "package", None) or workdir / "package.gxd"
    return Inputs(config, workdir, package)


def shipped() -> dict[str, Path]:
    """The configs that come along, by name: in the package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    folder = package / "configs"
    if not folder.is_dir():
        folder = package.parent / "configs"
    return {path.stem: path for path in sorted(folder.glob("*.py")) if path.stem[0] != "_"}


def locate(typed: str) -> str:
    """Finds the file of a config.

    Args:
      typed: a file or the name of a config that comes along; of either a variant, after a colon.

    Returns:
      The file, with its variant.

    Raises:
      UserError: it is neither.
    """
    name, *variant = typed.split(":", 1)
    configs = shipped()
    if name in configs and not Path(name).is_file():
        return ":".join([str(configs[name]), *variant])
    if name and Path(name).exists():
        return typed
    nearest = difflib.get_close_matches(Path(name).stem, configs, 1, 0)
    known = f"Did you mean {':'.join([*nearest, *variant])}? " if nearest else ""
    raise UserError(
        f"--config={typed} cannot be read: there is no such file, and no config of this name. "
        f"{known}Configs that come along: {', '.join(configs)}."
    )


def read(
    typed: str | None, fields: Sequence[str], default: str | None = None
) -> "ml_collections.ConfigDict | None":
    """Reads a config and changes its settings.

    Args:
      typed: what `locate` takes.
      fields: the changes, each `--config.FIELD=VALUE`.
      default: takes the place of `typed` where that is None.

    Returns:
      The config; None where there is no `typed`, no `default`, and nothing to change.

    Raises:
      UserError: it cannot be read, or a setting is unknown or has an unfit value.
    """
    from absl import flags

    typed = default if typed is None else typed
    if typed is None:
        if fields:
            raise UserError(_missing())
        return None
    from gxdistill.jobs import settings
    from gxdistill.jobs.shared import SHARED
    from gxdistill.jobs.typed import change

    file = locate(typed)
    plain = _load(file, typed)
    known = settings.table_of(plain, SHARED).settings
    _check_known(plain, fields, known)
    free, others = _part(fields, known)
    try:
        config = _value(file, others)
        for name, text in free:
            change(config, name, text, known)
    except (flags.Error, TypeError, ValueError) as error:
        raise UserError(f"a setting has an unfit value: {_cause(error)}") from error
    return config


def _part(
    fields: Sequence[str], known: "Mapping[str, Setting]"
) -> tuple[list[tuple[str, str]], list[str]]:
    """Parts the changes of tuples, of mappings and to None, as people write them, from the others.

    ml_collections takes `a,b` for one name, makes `(None,)` of None, and adds no key to a mapping.
    """
    from gxdistill.jobs.typed import is_free_text

    free, others = [], []
    for field in fields:
        name, _, text = field.removeprefix("--config.").partition("=")
        if is_free_text(name, text, known):
            free.append((name, text))
        else:
            others.append(field)
    return free, others


def _value(file: str, fields: Sequence[str]) -> Any:
    """What a config file returns, with changed settings."""
    from absl import flags
    from ml_collections import config_flags

    values = flags.FlagValues()
    argv = ["gxdistill", f"--config={file}", *fields]
    config_flags.DEFINE_config_file("config", None, flag_values=values, sys_argv=argv)
    values(argv)
    return values["config"].value


def _load(file: str, typed: str) -> "ml_collections.ConfigDict":
    """Reads a config as it is."""
    try:
        config = _value(file, [])
        is_config = hasattr(config, "get_ref")  # of a file that was not read, this raises why
    except Exception as error:  # the file is the user's code: it may raise anything
        raise UserError(f"--config={typed} cannot be read: {_cause(error)}") from error
    if not is_config:
        raise UserError(
            f"--config={typed} names no file with a function get_config that returns an "
            f"ml_collections.ConfigDict, as configs/demo.py does."
        )
    return config


def _check_known(
    config: "ml_collections.ConfigDict", changes: Sequence[str], table: "Mapping[str, Setting]"
) -> None:
    """Refuses changes of settings that a config does not have; ml_collections names no nearest."""
    from gxdistill.jobs.typed import mapping_of

    known = _names(config)
    for change in changes:
        name = change.removeprefix("--").partition("=")[0]
        at, _, key = name.rpartition(".")
        present = [other.rpartition(".")[2] for other in known if other.startswith(f"{at}.")]
        # A new key of a mapping is the user's, unless it looks like one that is there.
        mistyped = difflib.get_close_matches(key, present, 1, 0.75)
        is_new = mapping_of(name.removeprefix("config."), table) and not mistyped
        if name not in known and not is_new:
            nearest = difflib.get_close_matches(name, known, 1, 0)
            hint = f" Did you mean --{nearest[0]}?" if nearest else ""
            raise UserError(f"unknown setting --{name}.{hint}")


def _names(config: "ml_collections.ConfigDict", prefix: str = "config") -> list[str]:
    names = []
    for key in config:
        names.append(f"{prefix}.{key}")
        value = config.get_ref(key).get()
        if hasattr(value, "get_ref"):
            names += _names(value, names[-1])
    return names


def _cause(error: Exception) -> str:
    # ml_collections puts a whole traceback into a message; what happened is its last line.
    return (str(error).strip() or type(error).__name__).splitlines()[-1].strip()


def _missing() -> str:
    return (
        f"--config is missing. Name a file, for example --config=configs/demo.py, or one of "
        f"{', '.join(shipped())}."
    )
