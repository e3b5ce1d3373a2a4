"""The command line: flags, progress and kind failures. Nothing costly is imported for the help."""

import dataclasses
import difflib
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gxdistill.cli import packages
from gxdistill.errors import UserError
from gxdistill.runtime.console import log

if TYPE_CHECKING:
    import ml_collections

    from gxdistill.jobs.job import Job

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
  --seeds=N                 train, evaluate: number of fresh networks of each kind (default:
                            evaluate.networks of the config, else 5)
  --seed=N                  train, evaluate: draws their initial weights (default 0). A package with
                            known initial weights gives its one network unless one of these is given
  --max-loss=POINTS         compress: balanced accuracy over training patches that may be given up
  --weights                 compress: not the package, but a network trained on all real patches,
                            as weights.gxw, which `predict` takes as it takes a package
  --coordinator=HOST:PORT --processes=N --process=I
                            distill: runs as number I of N processes, of which number 0 is at HOST;
                            --coordinator=auto on a TPU pod or under Slurm (docs/hosts.md)
  --target=NAME             plan: cpu, h100, h200, a100, tpu-v5e-8 or tpu-v5p-8
  --price=X --images=N      plan: of a device for an hour; number of training images, not read
  --nocompile_cache         compiles everything anew; else what was compiled is kept for the next
                            start, in ~/.cache/gxdistill
"""
_NO_CONFIG = "--config is missing. Name a file, for example --config=configs/demo.py."
# Flags taken as they are, by kind; numbers with the lowest they may be.
_TEXTS = ("coordinator", "target")
_NUMBERS = {"seeds": 1, "seed": 0, "processes": 1, "process": 0, "images": 1}
_REALS = ("max-loss", "price")


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
    coordinator: str | None
    processes: int | None
    process: int | None
    target: str | None
    images: int | None
    price: float | None

    @property
    def fresh(self) -> int | None:
        """Number of fresh networks where --seeds names none."""
        return None if self.config is None else int(self.config.evaluate.networks)

    @functools.cached_property
    def job(self) -> "Job":
        """Of the config; the stages of a demo share its cohort."""
        from gxdistill.jobs.job import Job
        from gxdistill.jobs.workdir import Workdir

        if self.config is None:
            raise UserError(_NO_CONFIG)
        return Job(self.config, Workdir(self.workdir), log)


def _hush(_: str) -> None:
    pass


def _prepare(flags: _Flags) -> None:
    from gxdistill.tasks.cohort import preparing

    preparing.prepare(flags.job)


def _preview(flags: _Flags) -> None:
    from gxdistill.tasks.cohort import previewing

    log(f"preview: {previewing.write(flags.job)}")


def _distill(flags: _Flags) -> None:
    from gxdistill.jobs.workdir import Workdir
    from gxdistill.runtime import allocator, hosts
    from gxdistill.tasks.distillation import distilling

    allocator.give_back()
    place = hosts.Place(flags.coordinator, flags.processes, flags.process)
    with hosts.together(place, flags.workdir) as workdir:
        job = flags.job
        if workdir != flags.workdir:
            job = dataclasses.replace(job, workdir=Workdir(workdir), log=_hush)
        distilling.distil(job)


def _compress(flags: _Flags) -> None:
    from gxdistill.tasks.distillation import compressing, weights

    if flags.max_loss is None or not flags.max_loss >= 0:
        raise UserError("--max-loss must say how many points may be lost, as --max-loss=0.2.")
    (weights if flags.weights else compressing).compress(flags.job, flags.max_loss)


def _train(flags: _Flags) -> None:
    from gxdistill.receive import networks

    if len(flags.networks) > 1:
        raise UserError(
            f"--networks={','.join(flags.networks)} names several; train makes one kind. Name one."
        )
    name = flags.networks[0] if flags.networks else None
    trained = networks.train_networks(
        flags.package, count=flags.seeds, fresh=flags.fresh, seed=flags.seed, name=name
    )
    networks.save_networks(flags.workdir / "networks", trained)
    networks.say_networks(trained, log)


def _evaluate(flags: _Flags) -> None:
    from gxdistill.receive import networks
    from gxdistill.tasks.distillation import assessing

    job, folder = flags.job, flags.workdir / "networks"
    if flags.networks or (flags.seeds, flags.seed) != (None, None):
        trained, *others = networks.train_each(
            flags.package, flags.networks, count=flags.seeds, fresh=flags.fresh, seed=flags.seed
        )
        for one in (trained, *others):
            networks.say_networks(one, log)
    else:
        if not folder.exists():
            _train(flags)
        trained, others = networks.load_networks(folder, flags.package), []
    print(assessing.as_text(assessing.evaluate_package(job, flags.package, trained, others)))


def _plan(flags: _Flags) -> None:
    from gxdistill import plan

    if flags.target is None:
        raise UserError(f"--target is missing. Choose one of {', '.join(plan.NAMES)}.")
    if flags.config is None:
        raise UserError(_NO_CONFIG)
    made = plan.make(flags.config, flags.target, log=log, images=flags.images)
    print(plan.as_text(made, flags.price))


def _report(flags: _Flags) -> None:
    from gxdistill import report

    log(f"report: {report.write(flags.workdir, flags.package)}")


def _demo(flags: _Flags) -> None:
    for stage in (_distill, _train, _evaluate, _report):
        stage(flags)


_JOBS: dict[str, tuple[Callable[[_Flags], None], str]] = {
    "demo": (_demo, "run the whole job on a built-in cohort of phantoms"),
    "prepare": (_prepare, "check a cohort and write it as a set that is quickly read; resumes"),
    "preview": (_preview, "draw grid, mask and patch classes over a few images"),
    "distill": (_distill, "learn the distilled images and package them; resumes"),
    "train": (_train, "rebuild classifiers from a package alone"),
    "compress": (_compress, "write compressed.gxd: the package in fewer bits, see --max-loss"),
    "evaluate": (_evaluate, "measure classifiers on the test patients, beside baselines"),
    "plan": (_plan, "say what the job would take on --target, which need not be there"),
    "report": (_report, "write one HTML page with pictures"),
}


def _usage() -> str:
    texts = {name: text for name, (_, text) in _JOBS.items()}
    texts |= {name: f"{of.takes}: {of.text}" for name, of in packages.COMMANDS.items()}
    return _USAGE.format(commands="\n".join(f"  {name:<9} {text}" for name, text in texts.items()))


def _demo_config() -> str:
    return str(Path(__file__).parents[2] / "configs" / "demo.py")


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
    for name in ("workdir", "package", *_TEXTS):
        flags.DEFINE_string(name, None, "", flag_values=values)
    flags.DEFINE_list("networks", [], "", flag_values=values)
    for name, low in _NUMBERS.items():
        flags.DEFINE_integer(name, None, "", low, 2**32 - 1, flag_values=values)
    for name in _REALS:
        flags.DEFINE_float(name, None, "", lower_bound=0, flag_values=values)
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
    taken = (*_TEXTS, *_NUMBERS, *_REALS, "weights", "compile_cache")
    given: Any = {name.replace("-", "_"): values[name].value for name in taken}
    networks: Any = values["networks"].value
    return _Flags(config, workdir, path, tuple(networks), **given)


def _run(command: str, arguments: list[str]) -> None:
    if command in packages.COMMANDS:
        packages.run(command, arguments)
        return
    flags = _parse(command, arguments)
    from gxdistill.runtime import compile_cache

    if command == "plan":  # Devices are not there, or not to be held.
        os.environ["JAX_PLATFORMS"] = "cpu"

    if flags.compile_cache:
        compile_cache.enable(log)
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
    commands = [*_JOBS, *packages.COMMANDS]
    if command not in commands:
        nearest = difflib.get_close_matches(command, commands, 1, 0)
        sys.exit(f"gxdistill: unknown command {command!r}. Did you mean {nearest[0]!r}?")
    try:
        _run(command, rest)
    except UserError as error:
        sys.exit(f"gxdistill {command}: {' '.join(str(error).split())}")
    except KeyboardInterrupt:
        log(f"gxdistill {command}: interrupted; the same command resumes.")
        sys.exit(130)
    except (MemoryError, RuntimeError) as error:
        if "RESOURCE_EXHAUSTED" not in str(error) and not isinstance(error, MemoryError):
            raise
        sys.exit(
            f"gxdistill {command}: the memory does not suffice. Lower distill.batch, "
            f"distill.images_per_step, patch.size or the network's width, or raise data.downscale."
        )
