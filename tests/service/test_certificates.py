"""Certificates for trials: what they are good for, and for whom."""

import stat
import subprocess

import pytest

from gxdistill.errors import UserError
from gxdistill.service import certificates


def test_openssl_takes_the_certificate_for_its_hosts_alone(tmp_path):
    files = certificates.make(tmp_path, ["a.example", "::1"])

    def verify(*more):
        # As strict as Python is from 3.13 on.
        command = [
            "openssl",
            "verify",
            "-x509_strict",
            "-CAfile",
            files.authority,
            *more,
            files.server,
        ]
        return subprocess.run(command, capture_output=True, check=False).returncode

    assert verify("-verify_hostname", "a.example") == 0
    assert verify("-verify_ip", "::1") == 0
    assert verify("-verify_hostname", "b.example") != 0
    assert stat.S_IMODE(files.key.stat().st_mode) == 0o600
    with pytest.raises(UserError, match="is there already"):
        certificates.make(tmp_path, ["a.example"])
    with pytest.raises(UserError, match="is no host's name"):
        certificates.make(tmp_path / "x", ["h\xf6st"])
