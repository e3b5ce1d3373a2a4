"""The commands on mixing: train both sides, serve one, segment through the other."""

import argparse
from pathlib import Path

from gxdistill.cli.certificates import certificates_command
from gxdistill.cli.config import Inputs, job_command
from gxdistill.cli.flags import Command, Flag, path, text, whole
from gxdistill.errors import UserError
from gxdistill.runtime.console import log

_SMOKE = "--config=mixup:smoke --workdir=runs/mixup"
_TOKENS = Flag("tokens", "FILE", "of `mixup tokens` (default: tokens.json)", path)
_OUT = Flag("out", "DIR", "folder to write (default: segmentations)", path)
_REFERENCES = Flag(
    "references", "N", "mixtures a patient (default 1): each shows more", whole(1, 100)
)
_CLIENT = Flag("package", "FILE", "of the client, client.gxm", path)


def _train(_: argparse.Namespace, inputs: Inputs) -> None:
    from gxdistill.jobs.workdir import Workdir
    from gxdistill.tasks.mixup import training

    for file in training.train(inputs.required_config, Workdir(inputs.workdir), log):
        print(file)


def _evaluate(_: argparse.Namespace, inputs: Inputs) -> None:
    from gxdistill.jobs.workdir import Workdir
    from gxdistill.tasks.mixup import evaluating

    result = evaluating.evaluate(inputs.required_config, Workdir(inputs.workdir), log)
    print(evaluating.as_text(result))


def _report(options: argparse.Namespace, inputs: Inputs) -> None:
    from gxdistill.tasks.mixup import reporting

    log(f"report: {reporting.write(inputs.workdir, show=not options.no_pictures)}")


def _serve(options: argparse.Namespace) -> None:
    from gxdistill.runtime import compile_cache
    from gxdistill.service import server
    from gxdistill.service.protocol import Limits
    from gxdistill.tasks.mixup import sides

    for name in ("package", "certificate", "private_key"):
        if getattr(options, name) is None:
            raise UserError(
                f"--{name.replace('_', '-')} is missing. A server needs --package=server.gxm, "
                f"--certificate=CHAIN.pem and --private-key=KEY.pem; docs/mixup.md says how to "
                f"make them."
            )
    compile_cache.enable(log)
    given = {"requests_a_minute": options.rate, "concurrent": options.concurrent}
    chosen = {name: value for name, value in given.items() if value is not None}
    settings = server.Settings(
        model=options.package,
        certificate=options.certificate,
        key=options.private_key,
        tokens=options.tokens or Path("tokens.json").absolute(),
        journal=options.journal or Path("journal.db").absolute(),
        host=options.host or "127.0.0.1",
        port=8443 if options.port is None else options.port,
        limits=Limits(**chosen),
        together=not options.alone,
    )
    server.serve(settings, lambda file: sides.load_server(file, options.key), log)


def _tokens(options: argparse.Namespace) -> None:
    from gxdistill.service import tokens

    file = options.tokens or Path("tokens.json").absolute()
    if options.revoke:
        tokens.revoke(file, options.revoke)
    if options.make:
        print(tokens.make(file, options.make))
        log("note: the token is shown this once; hand it over on another way than the URL.")
        return
    for token in tokens.read(file):
        print(f"{token.id}  {token.issued}  {token.name}")


def _segment(options: argparse.Namespace) -> None:
    for name in ("package", "server"):
        if getattr(options, name) is None:
            raise UserError(
                f"--{name} is missing. A client needs --package=client.gxm and "
                f"--server=https://HOST:PORT, both from the server's operator."
            )
    _check_libraries()
    from gxdistill.runtime import compile_cache
    from gxdistill.service.client import Client
    from gxdistill.service.tokens import read_token
    from gxdistill.tasks.mixup import segmenting, sides

    compile_cache.enable(log)
    file = sides.load_client(options.package)
    record = options.record or options.package.with_suffix(".mixings.json")
    client = Client(
        options.server,
        read_token(options.token),
        digest=file.manifest.server,
        authority=options.authority,
    )
    with client:
        page = segmenting.segment(
            file,
            options.paths,
            options.out or Path("segmentations").absolute(),
            client,
            record,
            log,
            references=options.references or 1,
            again=options.again,
        )
    print(page)


def _predict(options: argparse.Namespace) -> None:
    for name in ("package", "server_package"):
        if getattr(options, name) is None:
            raise UserError(
                f"--{name.replace('_', '-')} is missing. Name both sides' files, "
                f"--package=client.gxm and --server-package=server.gxm; nothing is sent."
            )
    from gxdistill.runtime import compile_cache
    from gxdistill.tasks.mixup import segmenting, sides

    compile_cache.enable(log)
    file, model = sides.load_client(options.package), sides.load_server(options.server_package)
    if model.digest != file.manifest.server:
        raise UserError(
            f"{options.server_package} is not the server that {options.package} names. Take the "
            f"files of one training."
        )
    target = options.out or Path("segmentations").absolute()
    server = segmenting.LocalServer(model, str(options.server_package))
    count = options.references or 1
    print(segmenting.segment(file, options.paths, target, server, None, log, references=count))


def _references(options: argparse.Namespace) -> None:
    for name in ("package", "volumes", "out"):
        if getattr(options, name) is None:
            raise UserError(
                f"--{name} is missing. Name the client's file, a folder of volumes with labels "
                f"that the server's operator does not know, and the file to write."
            )
    from gxdistill.package import mixup_file
    from gxdistill.tasks.mixup import sides

    file = sides.load_client(options.package)
    mixup_file.save(options.out, sides.with_references(file, options.volumes))
    print(options.out)


def _check_libraries() -> None:
    try:
        import httpx  # noqa: F401
    except ImportError as error:
        raise UserError(
            "The client needs the libraries of the extra serve. Install them by "
            "`pip install '.[serve]'`."
        ) from error


COMMANDS = (
    job_command(
        "mixup train",
        "learn to segment mixtures and to un-mix them; resumes",
        _train,
        example=f"mixup train {_SMOKE}",
        interrupted="the same command resumes at the last checkpoint, if there is one",
    ),
    job_command(
        "mixup evaluate",
        "measure test patients through mixtures, and attack them; beside raw images",
        _evaluate,
        example=f"mixup evaluate {_SMOKE}",
        interrupted="the same command resumes training on raw images, and measures anew",
    ),
    job_command(
        "mixup report",
        "write one HTML page of an evaluation",
        _report,
        flags=(Flag("no-pictures", "", "leaves patients out of the page"),),
        example=f"mixup report {_SMOKE}",
    ),
    Command(
        "mixup predict",
        "segment folders of slices with both sides' files at hand; nothing is sent",
        _predict,
        (
            _CLIENT,
            Flag("server-package", "FILE", "of the server, server.gxm", path),
            _OUT,
            _REFERENCES,
        ),
        arguments="FOLDER...",
        example="mixup predict --package=client.gxm --server-package=server.gxm FOLDER",
    ),
    Command(
        "mixup references",
        "give a client references of its own, which no server knows",
        _references,
        (
            _CLIENT,
            Flag("volumes", "DIR", "of images_u8.npy.xz and labels_meta.npz", path),
            Flag("out", "FILE", "the client's file to write", path),
        ),
        example="mixup references --package=client.gxm --volumes=FOLDER --out=private.gxm",
    ),
    Command(
        "mixup tokens",
        "list who may ask a server, or change it",
        _tokens,
        (
            _TOKENS,
            Flag("make", "NAME", "makes a token and prints it, once", text),
            Flag("revoke", "NAME", "removes a token; a server refuses it at once", text),
        ),
        example="mixup tokens --make=hospital-a",
    ),
    certificates_command("mixup certificates"),
    Command(
        "mixup serve",
        "segment mixtures for clients, over TLS alone",
        _serve,
        (
            Flag("package", "FILE", "server.gxm; another in its place is taken at once", path),
            Flag(
                "certificate", "PEM", "of this server, with what lies between it and its CA", path
            ),
            Flag("private-key", "PEM", "of the certificate", path),
            Flag("key", "PUBLIC.pem", "public key of who must have signed the package", path),
            _TOKENS,
            Flag("journal", "FILE", "counts what was served (default: journal.db)", path),
            Flag("host", "ADDRESS", "to listen at (default: 127.0.0.1)", text),
            Flag("port", "N", "to listen at (default: 8443)", whole(0, 65535)),
            Flag("rate", "N", "requests a minute of a token (default: 6000)", whole(1)),
            Flag("concurrent", "N", "requests of a token at a time (default: 16)", whole(1, 64)),
            Flag("alone", "", "computes each request by itself, for comparisons"),
        ),
        example="mixup serve --package=server.gxm --certificate=chain.pem --private-key=key.pem",
        interrupted="what was accepted was answered",
    ),
    Command(
        "mixup segment",
        "have folders of slices segmented, of which mixtures alone are sent",
        _segment,
        (
            _CLIENT,
            Flag("server", "URL", "https://HOST:PORT", text),
            Flag(
                "authority",
                "CA.pem",
                "that signed the server's certificate (default: the system's)",
                path,
            ),
            Flag("token", "FILE", "that holds the token (default: of GXDISTILL_TOKEN)", path),
            _OUT,
            Flag("record", "FILE", "of who was mixed (default: beside the package)", path),
            _REFERENCES,
            Flag("again", "", "mixes patients a second time; see docs/mixup.md"),
        ),
        arguments="FOLDER...",
        example="mixup segment --package=client.gxm --server=https://HOST:8443 FOLDER",
        interrupted="what was recorded as mixed is sent again as the same mixtures",
    ),
)
