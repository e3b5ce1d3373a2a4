"""What may become the name of a file, and what may not."""

from pathlib import Path

import numpy as np
import pytest

from gxdistill import storage
from gxdistill.errors import UserError
from tests.hostile import NAMES, SOUND


@pytest.mark.parametrize("name", SOUND)
def test_a_plain_name_stays_in_its_folder(tmp_path, name):
    assert storage.plain_name(name) == name
    storage.child(tmp_path, name).write_text("x")
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", NAMES)
def test_any_other_name_is_refused_in_one_short_printable_line(tmp_path, name):
    for refuses in (storage.plain_name, lambda name: storage.child(tmp_path, name)):
        with pytest.raises(UserError, match="cannot be the name of a file: it ") as caught:
            refuses(name)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize("name", NAMES)
def test_a_path_to_read_is_below_its_folder_or_refused(name):
    for path in (name, f"a/{name}", f"{name}/a"):
        try:
            place = storage.below(Path("/data/set"), path)
        except UserError:
            continue
        assert place.is_relative_to("/data/set")
        assert place != Path("/data/set")
        assert ".." not in place.parts


@pytest.mark.parametrize("name", ["ä.png", "12:30.png", ".hidden.png", "a%2Fb", "con.png", "{id}"])
def test_what_is_only_read_may_have_any_harmless_name(name):
    assert storage.below(Path("/data"), f".//images/./{name}") == Path("/data/images", name)


@pytest.mark.parametrize("path", ["", ".", "./.", "/", "//a", "a\\b", "C:/a", "a/C:b", "a\0b"])
def test_other_paths_are_refused(path):
    with pytest.raises(UserError, match="cannot be the name of a file"):
        storage.below(Path("/data"), path)


def test_arrays_of_a_file_have_plain_names(tmp_path):
    for name in NAMES:
        if name:
            with pytest.raises(UserError, match="cannot be the name of a file"):
                storage.write_arrays(tmp_path / "a.npz", **{f"../{name}": np.ones(1)})
    assert list(tmp_path.iterdir()) == []


def test_half_a_character_is_no_json():
    for text in (r'{"a": "\ud800"}', r'{"\udfff": 1}', r'{"a": ["\udc00\ud800"]}'):
        with pytest.raises(UserError, match="not valid JSON"):
            storage.parse_json(text.encode(), "here")
    assert storage.parse_json(rb'{"a": "\ud83d\ude00"}', "here") == {"a": "\U0001f600"}


FORMULAS = ("=cmd|' /C calc'!A0", "+1+1", "-1", "@SUM(A1)", " =1", "\u200b=1", "\uff1d1", "\t1")


@pytest.mark.parametrize("text", FORMULAS)
def test_what_a_spreadsheet_would_compute_is_a_text_in_a_table(text):
    assert storage.cell(text) == f"'{text}"


@pytest.mark.parametrize("value", ["a=b", "x", "", "two words", -1.5, 0, None])
def test_what_is_no_formula_stays(value):
    assert storage.cell(value) == value
    assert type(storage.cell(value)) is type(value)


def test_what_is_no_text_becomes_an_escape_in_a_table():
    assert storage.cell("=\udcff") == r"'=\xff"
