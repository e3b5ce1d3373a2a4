import pytest

from gxdistill.data.files.folders import is_left_by_tools, list_files


def test_what_systems_and_tools_leave_is_passed_over_and_counted(tmp_path):
    kept = ["a.png", "deep/b.png", "deep/er/c.dcm", "mac/MACOSX.png"]
    left = [".DS_Store", "deep/.b.png", "Thumbs.db", "~$list.csv"]
    hidden = [".ipynb_checkpoints/a-checkpoint.png", ".Trash/1/d.png", "deep/__MACOSX/._b.png"]
    for name in kept + left + hidden:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    files, passed = list_files(tmp_path)
    assert [file.relative_to(tmp_path).as_posix() for file in files] == sorted(kept)
    assert passed == len(left) + len(hidden)  # Each hidden folder is one.


@pytest.mark.parametrize("name", ["thumbs.db", "Thumbs.db", ".hidden", "__MACOSX"])
def test_names_of_tools_are_known_in_any_case_that_they_have(name):
    assert is_left_by_tools(name)
    assert not is_left_by_tools(f"a{name}")
