"""The command that makes certificates for a trial, which several tasks have."""

import argparse
from pathlib import Path

from gxdistill.cli.flags import Command, Flag, names, path
from gxdistill.runtime.console import log


def _certificates(options: argparse.Namespace) -> None:
    from gxdistill.service import certificates

    hosts = options.hosts or ("localhost", "127.0.0.1")
    for file in certificates.make(options.out or Path("certificates").absolute(), hosts):
        print(file)
    log("note: give clients ca.pem; server.key stays with the server.")


def certificates_command(name: str) -> Command:
    """Makes the command, under a task's name for it."""
    return Command(
        name,
        "make certificates for a trial, where a hospital's own are not at hand",
        _certificates,
        (
            Flag("hosts", "NAME[,...]", "of the server (default: localhost,127.0.0.1)", names),
            Flag("out", "DIR", "folder to write (default: certificates)", path),
        ),
        example=f"{name} --hosts=server.hospital.example",
    )
