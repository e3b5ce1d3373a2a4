"""The commands on a distillation job, from a cohort to a report."""

import argparse
import dataclasses
import os
from pathlib import Path

from gxdistill.cli import budgets
from gxdistill.cli.config import CONFIG, PACKAGE, Inputs, job_command, read, read_inputs
from gxdistill.cli.flags import Command, Flag, names, non_negative, path, whole
from gxdistill.errors import UserError
from gxdistill.runtime.console import hush, log

_COORDINATOR = Flag(
    "coordinator",
    "HOST:PORT",
    "address of the first of several processes that run the job together; `auto` on a TPU pod or "
    "under Slurm",
)
_PROCESSES = Flag("processes", "N", "with --coordinator=HOST:PORT: their number", read=whole(1))
_PROCESS = Flag(
    "process", "I", "with --coordinator=HOST:PORT: number of this one, from 0", read=whole(0)
)
FORCE = Flag("force", "", "packages even what diverged: its loss is far worse than guessing")
_NETWORK = Flag(
    "networks",
    "NAME",
    "network of the zoo (lenet, convnet, resnet18) in place of the package's own",
    read=names,
)
_NETWORKS = Flag(
    "networks",
    "NAME[,...]",
    "networks of the zoo (lenet, convnet, resnet18), to be trained anew and compared",
    read=names,
)
_SEEDS = Flag(
    "seeds",
    "N",
    "number of fresh networks of each kind (default: evaluate.networks of the config, else 5)",
    read=whole(1),
)
_SEED = Flag(
    "seed",
    "N",
    "draws their initial weights (default: 0). A package with known initial weights gives its one "
    "network unless --seeds or --seed is given",
    read=whole(0),
)
_MAX_LOSS = Flag(
    "max-loss",
    "POINTS",
    "points of balanced accuracy over training patches that may be given up",
    read=non_negative,
)
_WEIGHTS = Flag(
    "weights",
    "",
    "writes, not the package, but a network trained on all real patches, as weights.gxw, which "
    "`predict` takes as it takes a package",
)
_TO = Flag("to", "FORMAT", "onnx or safetensors")
_OUT = Flag("out", "DIR", "folder to write (default: networks-FORMAT in --workdir)", path)
_TARGET = Flag("target", "NAME", "one of a100, cpu, h100, h200, tpu-v5e-8, tpu-v5p-8")
_JSON = Flag("json", "", "writes them for programs, as one object by dotted name")
_PRICE = Flag("price", "X", "of a device for an hour", read=non_negative)
_IMAGES = Flag("images", "N", "number of training images, which are not read then", read=whole(1))


def _prepare(_: argparse.Namespace, inputs: Inputs) -> None:
    from gxdistill.tasks.cohort import preparing

    preparing.prepare(inputs.job)


def _preview(_: argparse.Namespace, inputs: Inputs) -> None:
    from gxdistill.tasks.cohort import previewing

    log(f"preview: {previewing.write(inputs.job)}")


def _distill(options: argparse.Namespace, inputs: Inputs) -> None:
    from gxdistill.jobs.workdir import Workdir
    from gxdistill.runtime import allocator, hosts
    from gxdistill.tasks.distillation import distilling

    allocator.give_back()
    spec = hosts.ProcessSpec(options.coordinator, options.processes, options.process)
    with hosts.process_group(spec, inputs.workdir) as workdir:
        job = inputs.job
        if workdir != inputs.workdir:
            job = dataclasses.replace(job, workdir=Workdir(workdir), log=hush)
        distilling.distil(job, force=options.force)


def _compress(options: argparse.Namespace, inputs: Inputs) -> None:
    from gxdistill.tasks.distillation import compressing, weights

    if options.max_loss is None:
        raise UserError("--max-loss must say how many points may be lost, as --max-loss=0.2.")
    (weights if options.weights else compressing).compress(inputs.job, options.max_loss)


def _default_count(inputs: Inputs) -> int | None:
    """Number of fresh networks where --seeds names none."""
    return None if inputs.config is None else int(inputs.config.evaluate.networks)


def _networks_folder(inputs: Inputs) -> Path:
    return inputs.workdir / "networks"


def _train(options: argparse.Namespace, inputs: Inputs) -> None:
    from gxdistill.receive import networks

    chosen: tuple[str, ...] = options.networks or ()
    if len(chosen) > 1:
        raise UserError(
            f"--networks={','.join(chosen)} names several; train makes one kind. Name one."
        )
    trained = networks.train_networks(
        inputs.package,
        count=options.seeds,
        fresh=_default_count(inputs),
        seed=options.seed,
        name=chosen[0] if chosen else None,
        budget=budgets.of(options),
        log=log,
    )
    networks.save_networks(_networks_folder(inputs), trained)
    networks.log_networks(trained, log)


def _export_networks(options: argparse.Namespace, inputs: Inputs) -> None:
    from gxdistill import package
    from gxdistill.receive import exchange, networks

    if options.to is None:
        raise UserError(f"--to is missing. Choose {' or '.join(exchange.FORMATS)}.")
    folder = _networks_folder(inputs)
    if not folder.exists():
        raise UserError(f"{folder} holds no networks. Run `gxdistill train` first.")
    trained = networks.load_networks(folder, inputs.package)
    target = options.out or inputs.workdir / f"networks-{options.to}"
    about = package.load(inputs.package).manifest
    for file in exchange.export_networks(about, trained, target, options.to):
        print(file)


def _evaluate(options: argparse.Namespace, inputs: Inputs) -> None:
    from gxdistill.receive import networks
    from gxdistill.tasks.distillation import assessing

    job, folder = inputs.job, _networks_folder(inputs)
    if (options.networks, options.seeds, options.seed) != (None, None, None):
        trained, *others = networks.train_each(
            inputs.package,
            options.networks or (),
            count=options.seeds,
            fresh=_default_count(inputs),
            seed=options.seed,
            budget=budgets.of(options),
            log=log,
        )
        for kind in (trained, *others):
            networks.log_networks(kind, log)
    else:
        if not folder.exists():
            _train(options, inputs)
        trained, others = networks.load_networks(folder, inputs.package), []
    print(assessing.as_text(assessing.evaluate_package(job, inputs.package, trained, others)))


def _plan(options: argparse.Namespace, inputs: Inputs) -> None:
    os.environ["JAX_PLATFORMS"] = "cpu"  # Devices are not there, or not to be held.
    from gxdistill import plan

    if options.target is None:
        raise UserError(f"--target is missing. Choose one of {', '.join(plan.NAMES)}.")
    outlook = plan.make(inputs.required_config, options.target, log=log, images=options.images)
    print(plan.as_text(outlook, options.price))


def _report(_: argparse.Namespace, inputs: Inputs) -> None:
    from gxdistill import report

    log(f"report: {report.write(inputs.workdir, inputs.package)}")


def _settings(options: argparse.Namespace) -> None:
    from gxdistill.jobs import checks, settings
    from gxdistill.jobs.shared import SHARED
    from gxdistill.tasks.distillation.settings import TABLE

    config = read(options.config, options.fields)
    table = TABLE
    if config is not None:  # It has imported its task, and thus made its settings known.
        table = settings.table_of(config, SHARED)
        checks.check(config, table)
    print((settings.as_json if options.json else settings.as_text)(table, config))


def _demo(options: argparse.Namespace, inputs: Inputs) -> None:
    """Runs all stages; unless a config is named, for any initial weights after the known ones."""
    _all_stages(options, inputs)
    if options.config is None:
        log("The same cohort once more, for any initial weights.")
        options = argparse.Namespace(**vars(options))
        options.config, options.workdir = "demo:random", inputs.workdir / "any_weights"
        _all_stages(options, read_inputs(options))


def _leave_out(options: argparse.Namespace, inputs: Inputs) -> None:
    """Runs all stages without each site in turn, and measures what they are worth there."""
    from gxdistill import storage
    from gxdistill.tasks.distillation import sites

    evaluations = {}
    for number, site in enumerate(sites.names_of(inputs.job)):
        log(f"Without {site}.")
        without = argparse.Namespace(**vars(options))
        without.fields = [*options.fields, f"--config.data.external={site}"]
        # A site's name is a stranger's, and no path.
        without.workdir = inputs.workdir / f"without-{number}"
        _all_stages(without, read_inputs(without))
        evaluations[site] = storage.read_json(without.workdir / "evaluation.json")
    print(sites.as_text(sites.summarise(inputs.job, evaluations)))


def _all_stages(options: argparse.Namespace, inputs: Inputs) -> None:
    flags_of_stages = (
        *("coordinator", "processes", "process", "force", "networks", "seeds", "seed"),
        *("max_memory", "max_seconds"),
    )
    of_stages = argparse.Namespace(**dict.fromkeys(flags_of_stages), **vars(options))
    for stage in (_distill, _train, _evaluate, _report):
        stage(of_stages, inputs)


_SMOKE = "--config=demo:smoke --workdir=runs/look"

COMMANDS = (
    job_command(
        "demo",
        "run the whole job on a built-in cohort of phantoms",
        _demo,
        default="demo",
        example="demo --config=demo:smoke",
        interrupted=(
            "the same command resumes what trains on real patches at its last checkpoint, if there "
            "is one, and does the rest anew"
        ),
    ),
    job_command(
        "leave-one-site-out",
        "run the whole job without each site in turn, and measure it there",
        _leave_out,
        example="leave-one-site-out --config=demo:smoke",
        interrupted=(
            "the same command resumes what trains on real patches and what is learned at the last "
            "checkpoint, and does the rest anew"
        ),
    ),
    job_command(
        "prepare",
        "check a cohort and write it as a set that is quickly read; resumes",
        _prepare,
        writes=False,  # By itself.
        example="prepare --config=gastric --config.data.path=FOLDER --workdir=runs/set",
        interrupted="the same command resumes with the images that are missing",
    ),
    job_command(
        "preview",
        "draw grid, mask and patch classes over a few images",
        _preview,
        example="preview --config=gastric --config.data.path=FOLDER --workdir=runs/mine",
    ),
    job_command(
        "distill",
        "learn the distilled images and package them; resumes",
        _distill,
        writes=False,  # By itself: of several processes, each works in a folder of its own.
        flags=(_COORDINATOR, _PROCESSES, _PROCESS, FORCE),
        example=f"distill {_SMOKE}",
        interrupted="the same command resumes at the last checkpoint, if there is one",
    ),
    job_command(
        "train",
        "rebuild classifiers from a package alone",
        _train,
        flags=(PACKAGE, _NETWORK, _SEEDS, _SEED, *budgets.FLAGS),
        example="train --package=package.gxd --workdir=runs/theirs",
    ),
    job_command(
        "export-networks",
        "write what `train` made for other programs, see --to",
        _export_networks,
        writes=False,
        flags=(PACKAGE, _TO, _OUT),
        example="export-networks --to=onnx --workdir=runs/theirs --package=package.gxd",
    ),
    job_command(
        "compress",
        "write compressed.gxd: the package in fewer bits, see --max-loss",
        _compress,
        flags=(_MAX_LOSS, _WEIGHTS),
        example=f"compress {_SMOKE} --max-loss=0.5",
        interrupted=(
            "with --weights, the same command resumes training at the last checkpoint; without, it "
            "starts anew"
        ),
    ),
    job_command(
        "evaluate",
        "measure classifiers on the test patients, beside baselines",
        _evaluate,
        flags=(PACKAGE, _NETWORKS, _SEEDS, _SEED, *budgets.FLAGS),
        example=f"evaluate {_SMOKE}",
        interrupted=(
            "the same command resumes training the ceiling at the last checkpoint, if there is "
            "one, and measures anew"
        ),
    ),
    job_command(
        "plan",
        "say what the job would take on --target, which need not be there",
        _plan,
        writes=False,
        flags=(_TARGET, _PRICE, _IMAGES),
        example="plan --config=gastric --target=h100 --price=2",
        interrupted="programs that are compiled are kept; the same command compiles the others",
    ),
    job_command(
        "report",
        "write one HTML page with pictures",
        _report,
        flags=(PACKAGE,),
        example="report --workdir=runs/look",
    ),
    Command(
        "settings",
        "list all settings of a config with what each may be; a star marks what it changes",
        _settings,
        flags=(CONFIG, _JSON),
        example="settings --config=radiograph:random",
    ),
)
