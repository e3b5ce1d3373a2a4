"""Initial weights that are not the network's: refused by whatever reads the package."""

import dataclasses
import json

import jax
import ml_dtypes
import numpy as np
import pytest

from gxdistill import models, package
from gxdistill.cli import main
from gxdistill.errors import UserError
from gxdistill.package.start_weights import check_start
from tests.package.mutating import ABSURD
from tests.packages import H, K, bits, change, make, repack

NETWORK = {"name": "convnet", "options": {"width": 4, "depth": 1}}


def _made(start=None, network=NETWORK):
    """A package that starts from a ConvNet's weights, or those given."""
    sound = models.create("convnet", shape=(H, H, 1), classes=K, width=4, depth=1)
    weights = jax.tree.map(np.asarray, sound.init(jax.random.key(0)))
    content = make()
    content = dataclasses.replace(content, start=weights if start is None else start)
    return change(content, network=package.NetworkChoice(**network), proof=None)


def _harmed(harm):
    weights = _made().start
    harm(weights)
    return weights


def _sent(path, start=None, network=NETWORK):
    """Writes a package as a stranger does: made for another network, and then renamed."""
    package.save(path, _made(start, {"name": "elsewhere", "options": {}}))

    def edit(files):
        manifest = {**json.loads(files["manifest.json"]), "network": network}
        files["manifest.json"] = json.dumps(manifest).encode()

    repack(path, edit)
    return path


HARMS = {
    "shape": (
        lambda w: w["Conv_0"].update(kernel=w["Conv_0"]["kernel"][..., :3]),
        r"start.Conv_0.kernel is float32 [3, 3, 1, 3] where the network convnet asks for float32 [3"
        r", 3, 1, 4]",
    ),
    "axes": (
        lambda w: w["Conv_0"].update(bias=w["Conv_0"]["bias"][None]),
        "start.Conv_0.bias is float32 [1, 4] where the network convnet asks for float32 [4]",
    ),
    "scalar": (
        lambda w: w["Conv_0"].update(bias=np.float32(0)),
        "start.Conv_0.bias is float32 [] where",
    ),
    "empty": (
        lambda w: w["Conv_0"].update(bias=np.zeros(0, np.float32)),
        "start.Conv_0.bias is float32 [0] where",
    ),
    "missing": (
        lambda w: w["Dense_0"].pop("bias"),
        "start.Dense_0.bias is missing where the network convnet asks for float32 [3]",
    ),
    "branch missing": (lambda w: w.pop("Conv_0"), "start.Conv_0.bias is missing"),
    "more": (
        lambda w: w.update(more=np.ones(2, np.float32)),
        "start.more is float32 [2] where the network convnet asks for none",
    ),
    "renamed": (
        lambda w: w.update(conv_0=w.pop("Conv_0")),
        "start.Conv_0.bias is missing where",
    ),
    "table in its place": (
        lambda w: w["Conv_0"].update(bias={"x": w["Conv_0"]["bias"]}),
        "start.Conv_0.bias is missing where",
    ),
}
for _dtype in ("float64", "float16", ml_dtypes.bfloat16, "int8", "bool", "uint64"):
    _name = np.dtype(_dtype).name
    HARMS[_name] = (
        lambda w, dtype=_dtype: w["Norm_0"].update(scale=np.ones(4, dtype)),
        f"start.Norm_0.scale is {_name} [4] where the network convnet asks for float32 [4]",
    )


@pytest.mark.parametrize(("harm", "reason"), HARMS.values(), ids=HARMS)
def test_arrays_that_are_not_the_networks_are_refused(tmp_path, harm, reason):
    path = _sent(tmp_path / "p.gxd", _harmed(harm))
    for reads in (package.load, package.verify):
        with pytest.raises(UserError) as caught:
            reads(path)
        assert reason in str(caught.value)
        assert str(caught.value).startswith(str(path))
    with pytest.raises(UserError) as caught:
        package.save(tmp_path / "mine.gxd", _made(_harmed(harm)))
    assert reason in str(caught.value)
    assert not (tmp_path / "mine.gxd").exists()


def _commands(path, folder):
    yield from (("verify", path), ("inspect", path), ("diff", path, path))
    for to in ("npz", "safetensors", "png", "pytorch-folder", "tfds"):
        yield "export", path, f"--to={to}", f"--out={folder}/{to}"
    yield "train", f"--package={path}", f"--workdir={folder}/run"


@pytest.mark.parametrize("kind", ["shape", "missing", "int8"])
def test_every_command_refuses_them_in_one_line(tmp_path, capsys, kind):
    path, folder = _sent(tmp_path / "p.gxd", _harmed(HARMS[kind][0])), tmp_path / "out"
    folder.mkdir()
    for arguments in _commands(path, folder):
        with pytest.raises(SystemExit) as stop:
            main.main(list(map(str, arguments)))
        assert HARMS[kind][1] in stop.value.code
        assert "\n" not in stop.value.code
        assert "Traceback" not in capsys.readouterr().err
        assert list(folder.iterdir()) == []


def test_one_array_is_no_table_of_them(tmp_path):
    for network in (NETWORK, {"name": "elsewhere", "options": {}}):
        with pytest.raises(UserError, match="start is one array, and not a table of them"):
            package.save(tmp_path / "p.gxd", _made(np.ones(3, np.float32), network))


def test_sound_weights_are_loaded_as_they_were(tmp_path):
    path = _sent(tmp_path / "p.gxd")
    assert bits(package.load(path).start) == bits(_made().start)
    package.save(tmp_path / "q.gxd", _made())
    package.verify(tmp_path / "q.gxd")


@pytest.mark.parametrize(
    "options",
    [
        *(
            {"width": 5, "depth": 1},
            {"width": 65536, "depth": 1},
            {"width": 2**31},
            {"depth": 10**9},
        ),
        *(
            {"depth": 10**400},
            {"width": [4]},
            {"norm": "x" * 20_000},
            {"shape": [1]},
            {"name": "x"},
        ),
        *({"a\nb": 1}, {"key": None}, {"stages": [256]}, {"dtype": "float8"}),
    ],
)
@pytest.mark.parametrize("name", ["convnet", "resnet18", "lenet"])
def test_a_network_that_is_not_the_weights_own_is_refused(tmp_path, name, options):
    path = _sent(tmp_path / "p.gxd", network={"name": name, "options": options})
    with pytest.raises(UserError) as caught:
        package.load(path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


def test_absurd_options_are_refused(tmp_path):
    made = _made()
    for name in ("convnet", "resnet18"):
        for option in ("width", "depth", "norm", "stages"):
            for value in ABSURD:
                network = package.NetworkChoice(name, {option: value})
                with pytest.raises(UserError) as caught:
                    check_start(change(made, network=network).manifest, made.start, tmp_path)
                assert str(caught.value).isprintable()
                assert len(str(caught.value)) < 1000


def test_a_network_of_others_has_weights_of_its_own(tmp_path):
    start = {"block 1": [{"w": np.ones((2, 3, 5), np.float16)}, {"n": np.array([1, 2])}]}
    path = tmp_path / "p.gxd"
    package.save(path, _made(start, {"name": "their-net", "options": {"any": [1]}}))
    found = package.load(path).start
    assert found["block 1"]["0"]["w"].shape == (2, 3, 5)
    package.export(package.load(path), tmp_path / "p.npz", "npz")
    with pytest.raises(SystemExit, match="their-net"):
        main.main(["train", f"--package={path}", f"--workdir={tmp_path}/run"])
