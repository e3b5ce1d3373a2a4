import pytest

from gxdistill.data.files import images
from gxdistill.data.files.grey import BadEntryError
from gxdistill.data.files.manifest import look_alikes, read_manifest
from gxdistill.errors import UserError

NAMES = ("normal", "ill")
HEADER = "image,label,patient"


def _read(tmp_path, text, columns=None, **more):
    path = tmp_path / "manifest.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_manifest(path, columns=columns or {}, label_names=NAMES, **more)[:2]


def test_optional_columns_may_be_left_out(tmp_path):
    entries, bad = _read(tmp_path, f"{HEADER}\na.png,0,p1\nb.png,ill,p2\n")
    assert not bad
    assert [entry.label for entry in entries] == [0, 1]
    assert entries[0].image == tmp_path / "a.png"
    assert (entries[0].mask, entries[0].site, entries[0].split) == (None, "unknown", "")


def test_what_spreadsheets_do_to_a_csv_is_read(tmp_path):
    text = f'\ufeff{HEADER},site\r\n"a, b.png",1.0, p1 ,\r\n\r\n"ü.png",normal,p2,Ōsaka\r\n'
    entries, bad = _read(tmp_path, text)
    assert not bad
    assert [(e.name, e.label, e.patient, e.site) for e in entries] == [
        ("a, b.png", 1, "p1", "unknown"),
        ("ü.png", 0, "p2", "Ōsaka"),
    ]


def test_columns_are_mapped_by_name_and_by_template(tmp_path):
    columns = {
        "image": "x/{id}_{view}.jpg",
        "mask": "m/{id}.png",
        "label": "class",
        "patient": "id",
    }
    entries, bad = _read(tmp_path, "id,view,class,label\n7,ap,ill,9\n", columns)
    assert not bad
    entry = entries[0]
    assert (entry.name, entry.label, entry.patient) == ("x/7_ap.jpg", 1, "7")
    assert entry.mask == tmp_path / "m/7.png"


def test_a_template_reads_columns_and_nothing_else(tmp_path):
    with pytest.raises(UserError, match=r"column 'id.__class__', which .* does not have"):
        _read(tmp_path, "id,label,patient\n1,0,p\n", {"image": "{id.__class__}.png"})


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        ("", {}, "lists no image"),
        (f"{HEADER}\n", {}, "lists no image. Add a header and a row"),
        (f"{HEADER}\n\n\n", {}, "lists no image"),
        (
            "image,label\na,0\n",
            {},
            "no column 'patient'. Add it, or map .* There are: image, label",
        ),
        ("image;label;patient\na;0;p\n", {}, "parted by semicolons. Save it with commas"),
        ("image,lable,patient\na,0,p\n", {}, "no column 'label'.*Did you mean 'lable'"),
        (f"{HEADER},label\na,0,p,1\n", {}, "columns of the same name: label"),
        (f"{HEADER}\na,0,p\n", {"site": "hospitl"}, "maps 'site' to column 'hospitl', which"),
        (f"{HEADER}\na,0,p\n", {"image": "{imag}.png"}, "column 'imag'.* Did you mean 'image'"),
        (f"{HEADER}\na,0,p\n", {"lable": "label"}, "maps 'lable', .*Did you mean 'label'"),
        (f"{HEADER}\nä,0,p\n".encode("latin-1"), {}, "not UTF-8 text. Save it as UTF-8"),
        (f'{HEADER}\n"a,0,p\n', {}, "cannot be read as CSV"),
    ],
)
def test_an_unusable_manifest_is_refused_in_one_line(tmp_path, text, columns, message):
    with pytest.raises(UserError, match=message) as caught:
        _read(tmp_path, text, columns)
    assert "\n" not in str(caught.value)


def test_a_missing_manifest_or_a_folder_in_its_place_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"There is no manifest .*nowhere\.csv\. Write a CSV with"):
        read_manifest(tmp_path / "nowhere.csv", columns={}, label_names=NAMES)
    with pytest.raises(UserError, match="cannot be read as CSV"):
        read_manifest(tmp_path, columns={}, label_names=NAMES)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("a.png,2,p", "label '2' is none of 0..1, normal, ill"),
        ("a.png,-1,p", "label '-1' is none of"),
        ("a.png,0.5,p", "label '0.5' is none of"),
        ("a.png,nan,p", "label 'nan' is none of"),
        ("a.png,inf,p", "label 'inf' is none of"),
        ("a.png,sick,p", "label 'sick' is none of"),
        ("a.png,,p", "label empty"),
        ("a.png,0, ", "patient empty"),
        (",0,p", "image empty"),
        ("../a.png,0,p", "image path leaves the folder of the manifest"),
        ("x/../../a.png,0,p", "image path leaves the folder of the manifest"),
        ("/etc/passwd,0,p", "image path leaves the folder of the manifest"),
        ("a/..,0,p", "image path leaves the folder of the manifest"),
        ("images\\a.png,0,p", "image path holds a backslash; folders are told by `/`"),
        ("C:/a.png,0,p", "image path names a drive"),
        ("a\0.png,0,p", "image path holds control characters or lone surrogates"),
        (f"{'a' * 256}/b.png,0,p", "image path takes more than 255 bytes"),
        (".,0,p", "image path is empty or a dot"),
        ("a.png,0", "the row has more or fewer cells than the header"),
        ("a.png,0,p,9", "the row has more or fewer cells than the header"),
        ("./good.png,0,q", "same file as line 2"),
    ],
)
def test_a_bad_row_is_quarantined_and_the_others_stay(tmp_path, row, reason):
    entries, bad = _read(tmp_path, f"{HEADER}\ngood.png,0,p0\n{row}\nlast.png,1,p1\n")
    assert [entry.line for entry in entries] == [2, 4]
    assert list(bad) == [3]
    assert bad[3].name == (row.partition(",")[0] or "line 3")
    assert bad[3].reason.startswith(reason)


def test_names_that_lead_nowhere_else_are_read(tmp_path):
    names = ("./a.png", "b//ä 12:30.png", ".c/con.png", "d%2Fe.png")
    rows = "".join(f"{name},0,p{i}\n" for i, name in enumerate(names))
    entries, bad = _read(tmp_path, f"{HEADER}\n{rows}")
    assert not bad
    assert [entry.name for entry in entries] == list(names)
    expected = [tmp_path / name for name in names]
    assert [entry.image for entry in entries] == expected


def test_a_file_listed_under_two_labels_is_out_altogether(tmp_path):
    entries, bad = _read(tmp_path, f"{HEADER}\na.png,0,p\nb.png,0,q\na.png,1,p\n")
    assert [entry.name for entry in entries] == ["b.png"]
    assert bad[2].reason == "same file as line 4, under another label"
    assert bad[4].reason == "same file as line 2, under another label"


def test_a_limit_is_spread_over_labels_sites_and_splits(tmp_path):
    rows = [
        f"{label}{site}{split}{i}.png,{label},p{label}{site}{split}{i},{site},{split}"
        for label in (0, 1)
        for site in "ab"
        for split in ("train", "test")
        for i in range(10)
    ]
    text = "\n".join([f"{HEADER},site,split", *rows])
    entries, _ = _read(tmp_path, text, limit=16)
    strata = [(entry.label, entry.site, entry.split) for entry in entries]
    assert {stratum: strata.count(stratum) for stratum in strata} == dict.fromkeys(strata, 2)
    assert len(set(strata)) == 8
    assert [entry.line for entry in entries] == sorted(entry.line for entry in entries)
    assert _read(tmp_path, text, limit=16)[0] == entries
    assert _read(tmp_path, text, limit=16, seed=1)[0] != entries
    assert len(_read(tmp_path, text, limit=500)[0]) == 80


@pytest.mark.parametrize("blank", ["nan", "NaN", "None", "NA", "n/a", "null", "#N/A", "unknown"])
def test_a_word_for_a_missing_value_is_no_patient(tmp_path, blank):
    rows = f"a.png,0,p\nb.png,0,{blank}\nc.png,1,{blank}\n"
    entries, bad = _read(
        tmp_path, f"{HEADER},mask,site\n{rows.replace(chr(10), f',{blank},nan' + chr(10))}"
    )
    assert [(e.patient, e.mask, e.site) for e in entries] == [("p", None, "unknown")]
    assert [bad[line].reason[:13] for line in (3, 4)] == ["patient empty"] * 2
    _, bad = _read(
        tmp_path, f"image,label,id,site\na.png,0,{blank},x\n", {"patient": "{site}-{id}"}
    )
    assert list(bad) == [2]


def test_an_id_that_a_spreadsheet_rounded_is_refused(tmp_path):
    _, bad = _read(tmp_path, f"{HEADER}\na.png,0,1.23457E+11\nb.png,0,E12\n")
    assert list(bad) == [2]
    assert bad[2].reason.startswith("patient '1.23457E+11' is a number that a table rounded")


def test_ids_that_may_be_the_same_are_found():
    ids = ["P01", "p01", "7", "007", "7.0", "a b", "ab", "p10", "p100", "Zoe\u0301", "Zo\u00e9"]
    pairs = look_alikes(ids)
    assert {frozenset(pair) for pair in pairs} == {
        *map(frozenset, [("P01", "p01"), ("007", "7"), ("007", "7.0"), ("a b", "ab")]),
        frozenset(("Zoe\u0301", "Zo\u00e9")),
    }
    assert look_alikes(["p1", "p2", "p10", "p20"]) == []


def test_a_name_in_the_other_form_of_its_accents_is_found(tmp_path):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    (tmp_path / f"{decomposed}.png").touch()
    entries, bad = _read(tmp_path, f"{HEADER}\n{composed}.png,0,{composed}\n{decomposed}.png,0,p\n")
    assert entries[0].image == tmp_path / f"{decomposed}.png"
    assert entries[0].patient == composed
    assert bad[3].reason == "same file as line 2"


@pytest.mark.parametrize(
    ("listed", "hint"),
    [
        ("a.PNG", "file missing; there is 'a.png', its name differs"),
        ("a.jpg", "file missing; there is 'a.png', its ending differs"),
        ("b.png", "file missing$"),
        ("x/a.png", "file missing: there is no folder 'x'"),
    ],
)
def test_of_a_missing_file_the_likely_one_is_named(tmp_path, listed, hint):
    (tmp_path / "a.png").touch()
    with pytest.raises(BadEntryError, match=hint):
        images.read_image(tmp_path / listed)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("image\tlabel\tpatient\n", "parted by tabs"),
        ("sep=;\nimage;label;patient\n", "parted by semicolons"),
        (f"{HEADER}\n".encode("utf-16"), "not UTF-8 text but UTF-16"),
        (b"PK\x03\x04\xff\xff", "it is a workbook: export the sheet as CSV"),
        ("IMAGE,label,patient\na,0,p\n", "Did you mean 'IMAGE'"),
    ],
)
def test_a_table_of_another_kind_is_named(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        _read(tmp_path, content)


def test_a_label_in_other_case_is_hinted_at(tmp_path):
    _, bad = _read(tmp_path, f"{HEADER}\na.png,Ill,p\n")
    assert bad[2].reason.endswith("did you mean 'ill'?")


@pytest.mark.parametrize(
    ("names", "text", "label"),
    [
        *((("1", "2"), text, 0) for text in ("1", "1.0", "01")),
        (("1", "2"), "2.0", 1),
        (("1", "0"), "1.0", 0),
        (("1", "0"), "0.0", 1),
        (("normal", "ill"), "01", 1),
    ],
)
def test_where_names_are_numbers_a_label_is_a_name_and_no_index(tmp_path, names, text, label):
    path = tmp_path / "manifest.csv"
    path.write_text(f"{HEADER}\na.png,{text},p\n")
    (entry,), bad = read_manifest(path, columns={}, label_names=names)[:2]
    assert not bad
    assert entry.label == label


@pytest.mark.parametrize(
    ("names", "text"), [(("1", "2"), "0"), (("1", "2"), "3"), (NAMES, "0_1"), (NAMES, "1e0")]
)
def test_a_number_that_is_no_name_is_refused(tmp_path, names, text):
    path = tmp_path / "manifest.csv"
    path.write_text(f"{HEADER}\na.png,{text},p\n")
    _, bad = read_manifest(path, columns={}, label_names=names)[:2]
    assert f"is none of {'0..1, ' if names == NAMES else ''}{', '.join(names)}" in bad[2].reason


def test_a_row_without_its_last_cell_is_not_skipped(tmp_path):
    text = f"{HEADER},split\na.png,0,p,train\nb.png,0,q\nc.png,1,r,test\n"
    entries, bad = _read(tmp_path, text)
    assert [entry.name for entry in entries] == ["a.png", "c.png"]
    assert bad[3].reason == "the row has more or fewer cells than the header"


def test_a_path_longer_than_any_is_one_bad_row(tmp_path):
    entries, bad = _read(tmp_path, f"{HEADER}\n{('x' * 200 + '/') * 30}a.png,0,p\nb.png,0,q\n")
    assert [entry.name for entry in entries] == ["b.png"]
    assert "image path cannot be looked up" in bad[2].reason


def test_what_tables_add_to_a_header_is_passed_over(tmp_path):
    for text in (f"{HEADER},,\na.png,0,p,,\n", f"sep=,\n{HEADER}\na.png,0,p\n"):
        entries, bad = _read(tmp_path, text)
        assert not bad
        assert [entry.name for entry in entries] == ["a.png"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_another_encoding_is_named(tmp_path, encoding):
    with pytest.raises(UserError, match=f"not UTF-8 text but {encoding[:6].upper()}"):
        _read(tmp_path, f"{HEADER}\na.png,0,p\n".encode(encoding))
