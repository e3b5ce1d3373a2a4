import csv
import hashlib
import logging
import queue
import struct
import sys

import numpy as np
import pytest

from gxdistill.data.files import decoding, grey, images
from gxdistill.data.files.grey import BadEntryError
from gxdistill.data.files.images import quiet, read_header
from gxdistill.errors import UserError
from tests.data import mutating

pydicom = pytest.importorskip("pydicom", reason="needs the extra `dicom`")

# Of the 26 public files, those that are no single grey image or that nobody can decode.
REFUSED = {
    "OBXXXX1A_rle.dcm": "colour DICOM",
    "SC_rgb_gdcm2k_uncompressed.dcm": "colour DICOM",
    "SC_rgb_jpeg_dcmtk.dcm": "colour DICOM",
    "SC_rgb_small_odd.dcm": "colour DICOM",
    "emri_small_RLE.dcm": "multi-frame DICOM",
    "emri_small_jpeg_ls_lossless.dcm": "multi-frame DICOM",
    "liver_deflate.dcm": "multi-frame DICOM",
    "MR_truncated.dcm": "DICOM pixels truncated",
    "no_meta.dcm": "not a DICOM file",
}
# Lossy: the index has what another decoder rounds otherwise; this is what libjpeg-turbo 3 gives.
DECODED_OTHERWISE = {"JPGExtended.dcm": "d30242775a414c01"}


def read_image(path):
    return images.read_image(path).pixels


def _in_stream(dataset):
    return "JPEG" in dataset.file_meta.TransferSyntaxUID.name


def _index(data_root):
    with (data_root / "dicom/index.csv").open() as file:
        return list(csv.DictReader(file))


def _stored(high=4000, dtype=np.uint16, shape=(20, 30)):
    return np.random.default_rng(0).integers(0, high, shape).astype(dtype)


def test_every_public_file_is_read_or_refused_with_a_reason(data_root):
    rows = _index(data_root)
    assert len(rows) == 26
    for row in rows:
        path = data_root / "dicom" / row["file"]
        if row["file"] in REFUSED:
            with pytest.raises(BadEntryError, match=REFUSED[row["file"]]):
                read_image(path)
            continue
        pixels = read_image(path)
        dataset = pydicom.dcmread(path)
        stored = decoding.decode(path, 0) if _in_stream(dataset) else dataset.pixel_array
        digest = hashlib.sha256(stored.tobytes()).hexdigest()[:16]
        assert digest == DECODED_OTHERWISE.get(row["file"], row["pixel_sha256_16"]), row["file"]
        assert pixels.dtype == np.uint8
        assert pixels.shape == stored.shape == read_header(path).size, row["file"]
        assert pixels.min() < pixels.max(), row["file"]


def test_a_lossless_file_gives_the_pixels_of_its_uncompressed_twin(data_root):
    plain = read_image(data_root / "dicom/MR_small.dcm")
    for twin in ("bigendian", "RLE", "implicit", "jpeg_ls_lossless", "jp2klossless"):
        twin_pixels = read_image(data_root / f"dicom/MR_small_{twin}.dcm")
        np.testing.assert_array_equal(twin_pixels, plain)


@pytest.mark.parametrize("name", ["MR_small", "RG3_J2KR", "MR_small_RLE", "JPEG-LL", "image_dfl"])
def test_a_cut_file_is_refused_or_whole(data_root, tmp_path, name):
    content = (data_root / f"dicom/{name}.dcm").read_bytes()
    whole = read_image(data_root / f"dicom/{name}.dcm")
    path = tmp_path / "cut.dcm"
    for length in (200, len(content) // 3, len(content) // 2, len(content) - 200, len(content) - 2):
        path.write_bytes(content[:length])
        try:
            # What follows the pixels may be missing; of the pixels, nothing.
            np.testing.assert_array_equal(read_image(path), whole)
            assert length == len(content) - 2
        except BadEntryError:
            pass


@pytest.mark.parametrize(
    "name", ["RG3_J2KI", "JPEG-LL", "MR_small_RLE", "MR_small_jpeg_ls_lossless"]
)
def test_a_cut_stream_in_an_intact_file_is_refused(data_root, tmp_path, name):
    dataset = pydicom.dcmread(data_root / f"dicom/{name}.dcm")
    frame = pydicom.encaps.get_frame(dataset.PixelData, 0, number_of_frames=1)
    reason = "DICOM pixels damaged" if "RLE" in name else "DICOM pixels truncated"
    for share in (0.3, 0.7, 0.98):
        cut = frame[: int(len(frame) * share)]
        dataset.PixelData = pydicom.encaps.encapsulate([cut])
        dataset.save_as(tmp_path / "cut.dcm")
        with pytest.raises(BadEntryError, match=reason):
            read_image(tmp_path / "cut.dcm")


def test_a_jpeg_2000_file_in_place_of_the_bare_stream_is_read(data_root, tmp_path):
    path = data_root / "dicom/RG3_J2KI.dcm"
    dataset = pydicom.dcmread(path)
    frame = pydicom.encaps.get_frame(dataset.PixelData, 0, number_of_frames=1)

    def box(kind, content):
        return struct.pack(">I", 8 + len(content)) + kind + content

    bits = dataset.BitsStored - 1
    head = struct.pack(">IIHBBBB", dataset.Rows, dataset.Columns, 1, bits, 7, 0, 0)
    colours = b"\1\0\0" + struct.pack(">I", 17)
    boxes = (
        box(b"jP  ", b"\r\n\x87\n"),
        box(b"ftyp", b"jp2 \0\0\0\0jp2 "),
        box(b"jp2h", box(b"ihdr", head) + box(b"colr", colours)),
        box(b"jp2c", frame),
    )
    dataset.PixelData = pydicom.encaps.encapsulate([b"".join(boxes)])
    dataset.save_as(tmp_path / "boxed.dcm")
    np.testing.assert_array_equal(read_image(tmp_path / "boxed.dcm"), read_image(path))


def test_eight_bits_without_a_window_are_kept(tmp_path, write_dicom):
    stored = _stored(256, np.uint8)
    write_dicom(tmp_path / "a.dcm", stored)
    np.testing.assert_array_equal(read_image(tmp_path / "a.dcm"), stored)
    write_dicom(tmp_path / "b.dcm", stored, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(read_image(tmp_path / "b.dcm"), 255 - stored)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_without_a_window_the_percentiles_of_the_modality_units_decide(
    tmp_path, write_dicom, dtype
):
    stored = _stored(dtype=dtype)
    path = tmp_path / "no suffix"
    write_dicom(path, stored, RescaleSlope=0.5, RescaleIntercept=-1024)
    np.testing.assert_array_equal(read_image(path), grey.to_uint8(stored * 0.5 - 1024))


@pytest.mark.parametrize("function", ["", "LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("rescale", [{}, {"RescaleSlope": 2, "RescaleIntercept": -1000}])
def test_a_window_is_applied_as_pydicom_does(tmp_path, write_dicom, function, rescale):
    window = {"WindowCenter": [900, 40], "WindowWidth": [1500, 80]}  # The first of two counts.
    if function:
        window["VOILUTFunction"] = function
    write_dicom(tmp_path / "a.dcm", _stored(), **window, **rescale)

    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    values = pydicom.pixels.apply_modality_lut(dataset.pixel_array, dataset)
    theirs = pydicom.pixels.apply_voi_lut(values, dataset).astype(np.float64)
    # pydicom maps onto the whole range of the stored values.
    low, high = (v * rescale.get("RescaleSlope", 1) for v in (0, 65535))
    low, high = (v + rescale.get("RescaleIntercept", 0) for v in (low, high))
    expected = (theirs - low) / (high - low) * 255
    np.testing.assert_allclose(read_image(tmp_path / "a.dcm"), expected, atol=0.51)


def test_each_lossless_compression_gives_the_same_pixels(tmp_path):
    files = mutating.dicoms(tmp_path)
    read = {}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        read[name] = images.read_image(tmp_path / name)
    others = ("table.dcm", "groups.dcm")  # Of other levels.
    lossless = {name: picture for name, picture in read.items() if name not in others}
    assert len(lossless) == 6
    for name, picture in lossless.items():
        np.testing.assert_array_equal(picture.pixels, read["plain.dcm"].pixels, err_msg=name)
        assert (picture.bits, picture.window) == (12, "window")


def test_a_modality_table_is_looked_up_before_the_window(tmp_path, write_dicom):
    table = np.linspace(0, 1, 4000) ** 3 * 4000
    item = pydicom.Dataset()
    item.LUTDescriptor = [4000, 0, 16]
    item.LUTData = table.astype("<u2").tobytes()
    item.ModalityLUTType = "US"
    window = {"WindowCenter": 2000, "WindowWidth": 4000, "VOILUTFunction": "LINEAR_EXACT"}
    write_dicom(tmp_path / "a.dcm", _stored(), ModalityLUTSequence=[item], **window)
    expected = table.astype(np.uint16)[_stored()] / 4000 * 255
    np.testing.assert_allclose(read_image(tmp_path / "a.dcm"), expected, atol=0.51)


def test_a_decoder_that_hangs_or_crashes_is_given_up(tmp_path, monkeypatch):
    (tmp_path / "J2K.dcm").write_bytes(mutating.dicoms(tmp_path)["JPEG2000Lossless.dcm"])
    program = tmp_path / "hangs.py"
    program.write_text("import time\nprint('ready', flush=True)\ntime.sleep(60)\n")
    for spoilt, seconds in ((program, 0.2), (tmp_path / "nothing.py", 60)):
        with monkeypatch.context() as patch:
            patch.setattr(decoding, "_idle", queue.SimpleQueue())
            patch.setattr(decoding, "_PROGRAM", spoilt)
            patch.setattr(decoding, "_SECONDS", seconds)
            with pytest.raises(BadEntryError, match="their decoder crashed or took long"):
                read_image(tmp_path / "J2K.dcm")
    assert read_image(tmp_path / "J2K.dcm").shape == (64, 64)


def test_a_lookup_table_comes_before_a_window(tmp_path, write_dicom):
    table = np.linspace(0, 1, 4000) ** 2 * 1023
    item = pydicom.Dataset()
    item.LUTDescriptor = [4000, 0, 10]
    item.LUTData = table.astype("<u2").tobytes()
    write_dicom(
        tmp_path / "a.dcm", _stored(), VOILUTSequence=[item], WindowCenter=5, WindowWidth=10
    )
    expected = table.astype(np.uint16)[_stored()] / 1023 * 255
    np.testing.assert_allclose(read_image(tmp_path / "a.dcm"), expected, atol=0.51)


@pytest.mark.parametrize(
    "window", [{"WindowWidth": 0}, {"WindowWidth": 0.5}, {"WindowWidth": -5}, {"WindowWidth": None}]
)
def test_a_window_without_width_is_passed_over(tmp_path, write_dicom, window):
    write_dicom(tmp_path / "a.dcm", _stored(), WindowCenter=100, **window)
    np.testing.assert_array_equal(read_image(tmp_path / "a.dcm"), grey.to_uint8(_stored()))


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "colour DICOM"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "colour DICOM"),
        ({"NumberOfFrames": 2}, "multi-frame DICOM"),
        ({"Rows": 60_000, "Columns": 60_000}, "header claims 60000x60000 pixels"),
        ({"Rows": 0}, "header claims 0x30 pixels"),
        ({"Rows": None}, "DICOM header without Rows"),
        ({"Rows": 21}, "DICOM pixels truncated: 1200 of 1260 bytes"),
        ({"Rows": 19}, "header and pixels disagree on the size"),
        ({"PixelData": None}, "DICOM file without pixels"),
        ({"WindowCenter": 9, "WindowWidth": 9, "VOILUTFunction": "DOE"}, "unknown function"),
    ],
)
def test_what_is_no_single_grey_image_is_refused(tmp_path, write_dicom, elements, reason):
    write_dicom(tmp_path / "a.dcm", _stored(), **elements)
    with pytest.raises(BadEntryError, match=reason):
        read_image(tmp_path / "a.dcm")


def test_pixels_that_are_not_numbers_are_refused(tmp_path, write_dicom):
    values = _stored().astype(np.float32)
    values[0, 0] = np.nan
    write_dicom(tmp_path / "a.dcm", _stored())
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    del dataset.PixelData
    dataset.FloatPixelData, dataset.BitsAllocated = values.tobytes(), 32
    dataset.save_as(tmp_path / "a.dcm")
    with pytest.raises(BadEntryError, match="not finite"):
        read_image(tmp_path / "a.dcm")


def test_no_text_of_a_header_gets_into_a_message(tmp_path, write_dicom, caplog, capfd):
    path = tmp_path / "a.dcm"
    write_dicom(path, _stored())
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    reasons = set()
    with caplog.at_level(logging.DEBUG), quiet():
        for _ in range(200):
            damaged = np.frombuffer(content, np.uint8).copy()
            places = rng.integers(132, 600, 4)
            damaged[places] ^= rng.integers(1, 256, 4).astype(np.uint8)
            path.write_bytes(damaged.tobytes())
            try:
                read_image(path)
            except BadEntryError as error:
                reasons.add(str(error))
    assert len(reasons) > 1
    said = " ".join(reasons) + caplog.text + "".join(capfd.readouterr())
    assert "Doe" not in said
    assert "Jane" not in said


def test_without_pydicom_the_user_is_told_what_to_install(tmp_path, write_dicom, monkeypatch):
    write_dicom(tmp_path / "a.dcm", _stored())
    monkeypatch.setitem(sys.modules, "pydicom", None)  # As if it were not installed.
    with pytest.raises(UserError, match=r"a\.dcm is a DICOM file .* pip install pydicom pyjpegls"):
        read_image(tmp_path / "a.dcm")
