"""What names classes in a prepared set of others."""

import json
import sys

import numpy as np
import pytest

from gxdistill.data.prepared import reader
from gxdistill.errors import UserError

CORE = "tensorflow_datasets.core.features"


def _features(name="planted_module.Evil", **spelling):
    inner = {"pythonClassName": f"{CORE}.text_feature.Text", "text": {}} | spelling
    return {
        "type": f"{CORE}.features_dict.FeaturesDict",
        "content": {"features": {"a": {**inner, "pythonClassName": name}}},
        "proto_cls": "tensorflow_datasets.FeaturesDict",
    }


@pytest.mark.parametrize(
    "features",
    [
        _features(),
        _features(f"{CORE}.text_feature.Text", python_class_name="planted_module.Evil"),
        {**_features(), "type": "planted_module.Evil"},
        {**_features(), "content": json.dumps(_features()["content"])},
        _features(f"{CORE}.image_feature.Image"),
        _features(["planted_module.Evil"]),
    ],
)
def test_no_class_is_imported_that_a_set_names(tmp_path, monkeypatch, features):
    (tmp_path / "planted_module.py").write_text("class Evil: ...")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "features.json").write_text(json.dumps(features))
    with pytest.raises(UserError, match="Prepare it anew"):
        reader._check_features(tmp_path)
    assert "planted_module" not in sys.modules


def test_features_of_ours_pass(tmp_path):
    kinds = pytest.importorskip("tensorflow_datasets", reason="needs the extra `tfds`").features
    ours = {
        "image": kinds.Tensor(shape=(4, 4, 1), dtype=np.uint8),
        "label": kinds.ClassLabel(names=["a", "b"]),
        "patient": kinds.Text(),
    }
    (tmp_path / "features.json").write_text(json.dumps(kinds.FeaturesDict(ours).to_json()))
    reader._check_features(tmp_path)
