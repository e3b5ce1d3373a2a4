"""Training of both sides: interrupted and not, and what is written."""

import io
import lzma

import jax
import numpy as np
import pytest

from gxdistill import package, storage
from gxdistill.data import volumes
from gxdistill.errors import UserError
from gxdistill.jobs.loop import Run
from gxdistill.jobs.workdir import Workdir
from gxdistill.package import mixup_file
from gxdistill.tasks.mixup import evaluating, reporting, settings, sides, training
from gxdistill.tasks.mixup.cohort import MixupCohort
from tests.tasks.mixup import tiny


def _silent(_):
    pass


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = Workdir(tmp_path_factory.mktemp("whole"))
    training.train(tiny.config(), workdir, _silent)
    return workdir


def test_a_run_that_was_interrupted_ends_bit_for_bit_as_one_that_was_not(
    trained, tmp_path, monkeypatch
):
    workdir = Workdir(tmp_path / "run")

    class Interrupted(Run):
        def _advanced(self, state, *others):
            state = super()._advanced(state, *others)
            if int(state.step) == 2:
                raise KeyboardInterrupt
            return state

    with monkeypatch.context() as patched:
        patched.setattr(training, "Run", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            training.train(tiny.config(), workdir, _silent)
    lines = []
    training.train(tiny.config(), workdir, lines.append)
    assert "mixing: resuming at step 2" in lines
    for name in (training.SERVER_FILE, training.CLIENT_FILE):
        assert (workdir / name).read_bytes() == (trained / name).read_bytes()


def test_both_sides_are_read_back_and_the_client_names_its_server(trained):
    server = sides.load_server(trained / training.SERVER_FILE)
    client = sides.load_client(trained / training.CLIENT_FILE)
    assert client.manifest.server == server.digest == package.digest(trained / "server.gxm")
    cohort = MixupCohort(tiny.config())
    np.testing.assert_array_equal(client.images, cohort.pool.images)
    np.testing.assert_array_equal(client.labels, cohort.pool.labels)
    assert not {*cohort.pool.patients} & {*cohort.private.patients, *cohort.test.patients}
    assert not {*cohort.private.patients} & {*cohort.test.patients}
    images = np.random.default_rng(0).random((2, *server.shape), np.float32)
    result = np.asarray(server.apply(server.weights, images))
    np.testing.assert_allclose(result.sum(-1), 1, atol=1e-5)


def _write_volumes(folder, drawn):
    """Writes volumes as `data.volumes.read` reads them: the slices along the second axis."""
    images, labels = (np.moveaxis(array, 1, 2) for array in (drawn.images, drawn.labels))
    buffer = io.BytesIO()
    np.save(buffer, images)
    (folder / volumes.IMAGES_FILE).write_bytes(lzma.compress(buffer.getvalue()))
    table = {"labels": labels, "ids": drawn.patients, "is_test": drawn.is_test}
    np.savez(folder / volumes.LABELS_FILE, **table)


def test_a_client_takes_references_of_its_own(trained, tmp_path):
    client = sides.load_client(trained / training.CLIENT_FILE)
    drawn = volumes.phantoms(5, 16, 77)
    _write_volumes(tmp_path, drawn)
    np.testing.assert_array_equal(volumes.read(tmp_path, ("a", "b", "c")).labels, drawn.labels)
    mixup_file.save(tmp_path / "private.gxm", sides.with_references(client, tmp_path))
    private = sides.load_client(tmp_path / "private.gxm")
    np.testing.assert_array_equal(private.images, drawn.images)
    assert private.manifest.server == client.manifest.server
    _write_volumes(tmp_path, volumes.phantoms(5, 20, 77))
    with pytest.raises(UserError, match=r"slices of \(20, 20\) pixels"):
        sides.with_references(client, tmp_path)
    with pytest.raises(UserError, match="classes up to 2 with 2 names"):
        volumes.read(tmp_path, ("a", "b"))
    (tmp_path / volumes.IMAGES_FILE).write_bytes(lzma.compress(bytes(1000))[:-20])
    with pytest.raises(UserError, match="cut short"):
        volumes.read(tmp_path, ("a", "b", "c"))


def test_a_file_that_was_changed_or_is_of_the_other_side_is_refused(trained, tmp_path):
    content = bytearray((trained / training.SERVER_FILE).read_bytes())
    content[len(content) // 2] ^= 1
    changed = tmp_path / "changed.gxm"
    changed.write_bytes(content)
    with pytest.raises(UserError, match=r"changed\.gxm"):
        sides.load_server(changed)
    with pytest.raises(UserError, match="is no mixup client, but another package"):
        sides.load_client(trained / training.SERVER_FILE)
    file = mixup_file.load(trained / training.SERVER_FILE, mixup_file.SERVER)
    broken = jax.tree.map(lambda x: np.full_like(x, np.nan), file.params)
    with pytest.raises(UserError, match="NaN"):
        mixup_file.save(tmp_path / "x.gxm", mixup_file.MixupFile(file.manifest, broken))
    fewer = {name: leaf for name, leaf in file.params.items() if name != "heads_0"}
    with pytest.raises(UserError, match="not those of its network"):
        mixup_file.save(tmp_path / "x.gxm", mixup_file.MixupFile(file.manifest, fewer))
    assert not (tmp_path / "x.gxm").exists()


def test_a_server_takes_only_what_was_signed_with_the_key_it_is_told(trained, tmp_path):
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    path = tmp_path / "server.gxm"
    path.write_bytes((trained / training.SERVER_FILE).read_bytes())
    keys = [Ed25519PrivateKey.generate() for _ in range(2)]
    for number, key in enumerate(keys):
        tmp_path.joinpath(f"{number}.pem").write_bytes(
            key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
        )
        tmp_path.joinpath(f"{number}.pub").write_bytes(
            key.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo)
        )
    with pytest.raises(UserError, match="is not signed"):
        sides.load_server(path, tmp_path / "0.pub")
    digest = package.digest(path)
    package.sign(path, tmp_path / "0.pem")
    assert sides.load_server(path, tmp_path / "0.pub").digest == digest
    with pytest.raises(UserError, match="was not signed with the key"):
        sides.load_server(path, tmp_path / "1.pub")


@pytest.mark.slow
def test_an_evaluation_is_written_with_its_page(trained):
    result = evaluating.evaluate(tiny.config(references=2), trained, _silent)
    ways = result["contenders"]
    assert {*ways} == {"unmixed", "mixture alone", "raw images", "noise", "deformation"}
    assert ways["raw images"]["ssim"] == pytest.approx(1)
    assert ways["raw images"]["precision_at_1"]["value"] == 1
    # Found on training slices, of other patients.
    assert ways["noise"]["ssim"] == pytest.approx(ways["unmixed"]["ssim"], abs=0.15)
    assert result["references"] == 2
    audit = result.pop("audit")
    assert storage.read_json(trained / evaluating.AUDIT) == audit
    assert storage.read_json(trained / evaluating.RESULT) == result
    page = reporting.write(trained.path).read_text()
    assert "Mixing is no encryption" in page
    assert f"{ways['unmixed']['dice']:.3f}" in page
    assert audit["verdicts"]["singling_out"]["words"] in page
    assert page.count("<img ") == 2 * 6  # Of both test patients.
    assert "<img " not in reporting.write(trained.path, show=False).read_text()


def test_patients_that_settings_are_chosen_on_are_training_patients():
    whole, chosen = (
        MixupCohort(tiny.config(patients=16, measured_on=name)) for name in ("test", "training")
    )
    train = {*whole.pool.patients, *whole.private.patients}
    assert len(chosen.test.patients) == len(whole.test.patients)
    assert {*chosen.test.patients} < train
    rest = {*chosen.pool.patients, *chosen.private.patients}
    assert rest == train - {*chosen.test.patients}


def test_settings_that_do_not_fit_each_other_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"mixup\.low is 0\.6, above mixup\.high, 0\.5"):
        settings.check(tiny.config(low=0.6))
    with pytest.raises(UserError, match=r"mixup\.steps is 5, not a multiple"):
        settings.check(tiny.config(steps=5))
    with pytest.raises(UserError, match=r"mixup\.pool is 6; of 6 training patients"):
        training.train(tiny.config(pool=6), Workdir(tmp_path), _silent)
