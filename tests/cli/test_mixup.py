"""The commands of mixing, from training to masks that a server made of mixtures."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from gxdistill.cli import main
from gxdistill.data import volumes
from gxdistill.service import server
from gxdistill.tasks.mixup import segmenting
from tests.commands import refusal
from tests.service import serving

_TINY = (
    *("--config=mixup:smoke", "--config.mixup.segmenter=width=2,depth=1"),
    *("--config.mixup.unmixer=width=2,depth=1", "--config.mixup.steps=4"),
    *("--config.mixup.steps_per_call=2", "--config.mixup.checkpoint_every=4"),
    *("--config.mixup.size=16", "--config.mixup.batch=4", "--config.mixup.patients=8"),
    "--config.mixup.pool=3",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Both sides' files, certificates, a token, and two patients' slices."""
    folder = tmp_path_factory.mktemp("mixup")
    main.main(["mixup", "train", *_TINY, f"--workdir={folder}"])
    main.main(["mixup", "certificates", f"--out={folder}"])
    for row, volume in enumerate(volumes.phantoms(4, 16, 9).images[:2]):
        patient = folder / "in" / f"patient_{row}"
        patient.mkdir(parents=True)
        for number, pixels in enumerate(volume):
            Image.fromarray(pixels[:, 1:-1]).save(patient / f"slice_{number}.png")
    return folder


@pytest.fixture(scope="module")
def url(folder, capfd_of_module):
    """A server by the command, in a process of its own."""
    main.main(["mixup", "tokens", "--make=a hospital", f"--tokens={folder / 'tokens.json'}"])
    (folder / "token").write_text(capfd_of_module.read())
    names = ("package", "certificate", "private-key", "tokens", "journal")
    files = ("server.gxm", "server.pem", "server.key", "tokens.json", "journal.db")
    flags = [f"--{name}={folder / file}" for name, file in zip(names, files, strict=True)]
    command = [sys.executable, "-m", "gxdistill", "mixup", "serve", *flags, "--port=0"]
    environment = {**os.environ, "PYTHONPATH": str(serving.ROOT), "JAX_PLATFORMS": "cpu"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        for line in process.stderr:
            if '"ready"' in line:
                break
        yield json.loads(line)["url"].replace("127.0.0.1", "localhost")
        process.send_signal(signal.SIGTERM)
        assert '"stopped"' in process.stderr.read()
        assert process.wait() == 0


@pytest.fixture(scope="module")
def capfd_of_module():
    import contextlib
    import io

    class Captured:
        def read(self):
            return text.getvalue()

    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        yield Captured()


def _flags(folder, url, out, record="record.json"):
    return (
        *("mixup", "segment", f"--package={folder / 'client.gxm'}", f"--server={url}"),
        *(f"--authority={folder / 'ca.pem'}", f"--token={folder / 'token'}"),
        *(f"--out={folder / out}", f"--record={folder / record}", str(folder / "in")),
    )


def test_folders_become_masks_and_a_page_and_a_second_time_the_same(folder, url):
    for out in ("out", "out_again"):
        main.main([*_flags(folder, url, out)])
    for patient in ("patient_0", "patient_1"):
        masks = sorted((folder / "out" / patient).glob("*.png"))
        assert len(masks) == 4
        assert np.asarray(Image.open(masks[0])).shape == (16, 16)
        for mask in masks:
            same = folder / "out_again" / patient / mask.name
            assert mask.read_bytes() == same.read_bytes()
    page = (folder / "out" / segmenting.PAGE).read_text()
    assert "Mixing is no encryption" in page
    assert "patient_1" in page
    ((requests, images),) = server.totals(folder / "journal.db").values()
    assert (requests, images) == (4, 16)
    line = refusal(*_flags(folder, url, "out_two"), "--references=2")
    assert "'patient_0' was mixed before" in line
    assert not (folder / "out_two").exists()
    assert [*server.totals(folder / "journal.db").values()] == [(4, 16)]


def test_both_sides_at_hand_give_masks_and_nothing_is_sent_or_recorded(folder, tmp_path):
    flags = [f"--package={folder / 'client.gxm'}", f"--server-package={folder / 'server.gxm'}"]
    main.main(["mixup", "predict", *flags, f"--out={tmp_path / 'out'}", str(folder / "in")])
    assert len(sorted((tmp_path / "out" / "patient_1").glob("*.png"))) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert "is missing" in refusal("mixup", "predict", flags[0], str(folder / "in"))


def test_what_does_not_fit_is_refused_before_anything_is_sent(folder, url, monkeypatch):
    monkeypatch.delenv("GXDISTILL_TOKEN", raising=False)
    flags = _flags(folder, url, "other", "other.json")
    assert "not of HTTPS" in refusal(*(f.replace("https://", "http://") for f in flags))
    assert "is no mixup client" in refusal(*(f.replace("client.gxm", "server.gxm") for f in flags))
    assert "--server is missing" in refusal(*(f for f in flags if "--server" not in f))
    assert "The token is missing" in refusal(*(f for f in flags if "--token" not in f))
    assert "has 3" in refusal(*flags, "--references=5")
    large = folder / "large" / "patient"
    large.mkdir(parents=True)
    Image.fromarray(np.zeros((40, 16), np.uint8)).save(large / "slice.png")
    assert "of 40x16 pixels" in refusal(*flags[:-1], str(large))
    assert not (folder / "other.json").exists()
    assert not (folder / "other").exists()


def test_tokens_are_listed_and_revoked(tmp_path, capsys):
    file = f"--tokens={tmp_path / 'tokens.json'}"
    main.main(["mixup", "tokens", "--make=b", file])
    token = capsys.readouterr().out.strip()
    main.main(["mixup", "tokens", file])
    listed = capsys.readouterr().out
    assert token.split("_")[1] in listed
    assert token not in listed
    assert "has a token of b" in refusal("mixup", "tokens", "--make=b", file)
    main.main(["mixup", "tokens", "--revoke=b", file])
    assert capsys.readouterr().out == ""
    assert "has no token of 'b'" in refusal("mixup", "tokens", "--revoke=b", file)
