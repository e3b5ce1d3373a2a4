"""The commands on a federation of sites."""

import argparse
import dataclasses
from typing import Any

from gxdistill.cli.certificates import certificates_command
from gxdistill.cli.config import Inputs, job_command
from gxdistill.cli.distillation import FORCE
from gxdistill.cli.flags import Command, Flag, path, share, text, whole
from gxdistill.errors import UserError
from gxdistill.runtime.console import log

_SITE = Flag("site", "NAME", "of the site", text)
_MAKE = (
    "Name the folder of server.pem and server.key, as --certificates=certificates; "
    "`gxdistill federate certificates` makes some for a trial."
)


def _simulate(_: argparse.Namespace, inputs: Inputs) -> None:
    from gxdistill.tasks.federation import simulating

    print(simulating.as_text(simulating.simulate(inputs.job)))


def _distill(options: argparse.Namespace, inputs: Inputs) -> None:
    from gxdistill.tasks.distillation import distilling, method
    from gxdistill.tasks.federation import sharing

    job = inputs.job
    problem = sharing.problem_of(job)
    distilling.distil(job, force=options.force, problem=problem)
    told = sharing.write_traffic(job, method.initial_learned(problem, job.config.distill))
    log(sharing.as_text(told))


def _report(_: argparse.Namespace, inputs: Inputs) -> None:
    from gxdistill.report import federation

    log(f"report: {federation.write(inputs.workdir)}")


def _new(options: argparse.Namespace) -> None:
    from gxdistill.tasks.federation import proposing

    for line in proposing.write(options.paths, options.out or path("federation.py")):
        log(line)


def _epsilon(options: argparse.Namespace) -> None:
    from gxdistill.tasks.federation import promises

    delta = 1e-2 if options.delta is None else options.delta
    if not 0 < delta < 1:
        raise UserError(f"--delta is {delta}; it must lie between 0 and 1, without these.")
    print(promises.curve_text(options.rounds or 50, delta))


def _key(options: argparse.Namespace) -> None:
    from gxdistill.tasks.federation import keys

    site = _required(options, "site", "Name the site whose keys are to be made, as --site=north.")
    for file in keys.make(options.out or path("keys"), site):
        print(file)
    log(f"note: send the server's operator {site}{keys.PUBLIC} alone; the other stays here.")


def _server(options: argparse.Namespace, inputs: Inputs) -> None:
    from gxdistill.federated.flower import superlink
    from gxdistill.jobs.workdir import Workdir
    from gxdistill.tasks.federation import keys, serving

    folder = _required(options, "certificates", f"A server is known by its certificate. {_MAKE}")
    registered = keys.read_registered(
        _required(
            options, "sites", "Name the folder with the file NAME.pub of each site that takes part."
        )
    )
    default = serving.Patience()
    patience = serving.Patience(
        options.timeout or default.round_s,
        default.first_s if options.wait is None else options.wait,
        options.least or default.least,
    )
    endpoint = superlink.Endpoint(
        options.host or "127.0.0.1",
        8443 if options.port is None else options.port,
        folder / "server.pem",
        folder / "server.key",
    )
    job = dataclasses.replace(inputs.job, workdir=Workdir(inputs.workdir / "server"))
    serving.check(job, tuple(registered), patience)
    with superlink.superlink(endpoint, registered) as link:
        log(f"listening at {link.address} for {', '.join(registered)}")
        serving.serve(job, link, tuple(registered), patience)
    log(f"done: the sites have the weights, and {job.workdir.checkpoints} does")


def _client(options: argparse.Namespace, inputs: Inputs) -> None:
    from gxdistill import storage
    from gxdistill.federated.flower import supernode
    from gxdistill.jobs.workdir import Workdir
    from gxdistill.tasks.federation import participating

    site = _required(options, "site", "Name this site as its keys are named, as --site=north.")
    connection = supernode.Connection(
        _required(options, "server", "Name it as --server=HOST:PORT."),
        _required(options, "authority", "Name the file ca.pem of the server's operator."),
        _required(options, "key", "Make one by `gxdistill federate key`."),
    )
    supernode.check(connection)
    folder = storage.child(inputs.workdir / "sites", site)
    job = dataclasses.replace(inputs.job, workdir=Workdir(folder))
    log(f"segmenter: {participating.take_part(job, site, connection)}")


def _required(options: argparse.Namespace, name: str, way_out: str) -> Any:
    value = getattr(options, name)
    if value is None:
        raise UserError(f"--{name} is missing. {way_out}")
    return value


COMMANDS = (
    Command(
        "federate new",
        "write a config for a folder of images and masks of each hospital",
        _new,
        (Flag("out", "FILE", "the config to write (default: federation.py)", path),),
        arguments="FOLDER FOLDER...",
        example="federate new north south --out=ours.py",
    ),
    job_command(
        "federate simulate",
        "train sites alone, in one place and together, on one machine; resumes",
        _simulate,
        example="federate simulate --config=federation:smoke",
        interrupted=(
            "the same command resumes at the last checkpoint of the training that was at work"
        ),
    ),
    job_command(
        "federate report",
        "write one HTML page of what `federate simulate` measured",
        _report,
        example="federate report --workdir=runs/federation_smoke",
    ),
    job_command(
        "federate distill",
        "learn one distilled set at several sites, which share meta-gradients; resumes",
        _distill,
        writes=False,  # By itself.
        flags=(FORCE,),
        example="federate distill --config=sharing:smoke",
        interrupted="the same command resumes at the last checkpoint, if there is one",
    ),
    Command(
        "federate key",
        "make the keys by which a server knows a site",
        _key,
        (_SITE, Flag("out", "DIR", "folder to write (default: keys)", path)),
        example="federate key --site=north",
    ),
    certificates_command("federate certificates"),
    job_command(
        "federate server",
        "train with sites over the network, by Flower under TLS; resumes",
        _server,
        writes=False,  # By itself.
        flags=(
            Flag("certificates", "DIR", "with server.pem and server.key", path),
            Flag("sites", "DIR", "with NAME.pub of each site that may take part", path),
            Flag("host", "ADDRESS", "to listen at (default: 127.0.0.1)", text),
            Flag("port", "N", "to listen at (default: 8443)", whole(0, 65535)),
            Flag("timeout", "SECONDS", "a round waits for its sites (default: 600)", whole(1)),
            Flag("wait", "SECONDS", "for all sites, before the first (default: 60)", whole(0)),
            Flag("least", "N", "sites without which no round begins (default: 1)", whole(1)),
        ),
        example="federate server --config=federation --certificates=certificates --sites=sites",
        interrupted="the same command resumes at the round that was under way",
    ),
    job_command(
        "federate client",
        "take part as a site, with patients that stay here; resumes",
        _client,
        writes=False,  # By itself.
        flags=(
            _SITE,
            Flag("server", "HOST:PORT", "as its certificate names it", text),
            Flag("authority", "CA.pem", "that signed the server's certificate", path),
            Flag("key", "FILE", "of this site, NAME.key", path),
        ),
        example="federate client --config=federation --site=north --server=HOST:8443 "
        "--authority=ca.pem --key=keys/north.key",
        interrupted="the same command takes part again",
    ),
    Command(
        "federate epsilon",
        "tell what noise on the sites' updates costs, by its size; the unit is the site",
        _epsilon,
        (
            Flag("rounds", "N", "in which a site takes part (default: 50)", whole(1, 10**6)),
            Flag("delta", "X", "at which epsilon is told (default: 0.01)", share),
        ),
        example="federate epsilon --rounds=50 --delta=0.01",
    ),
)
