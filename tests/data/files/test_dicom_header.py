import numpy as np
import pytest

from gxdistill.data.files import grey, images
from gxdistill.data.files.grey import BadEntryError

pydicom = pytest.importorskip("pydicom", reason="needs the extra `dicom`")

STORED = np.random.default_rng(0).integers(100, 3600, (40, 30)).astype(np.uint16)
BITS = {"BitsStored": 12, "HighBit": 11}
WINDOW = {"WindowCenter": 2048, "WindowWidth": 4096}


def _item(**elements):
    item = pydicom.Dataset()
    for name, value in elements.items():
        setattr(item, name, value)
    return item


@pytest.fixture
def read(tmp_path, write_dicom):
    def read(pixels=STORED, spelt=(), **elements):
        path = tmp_path / "a.dcm"
        write_dicom(path, pixels, **elements)
        for number, text in spelt:  # pydicom writes no text that is no number.
            path.write_bytes(path.read_bytes().replace(number, text))
        return images.read_image(tmp_path / "a.dcm")

    return read


def _windowed(values, centre=2048, width=4096):
    """PS3.3 C.11.2.1.2.1, by its own words."""
    scaled = (values.astype(float) - (centre - 0.5)) / (width - 1) + 0.5
    return np.rint(scaled.clip(0, 1) * 255)


GROUPS = _item(
    PixelValueTransformationSequence=[_item(RescaleSlope=2, RescaleIntercept=-200)],
    FrameVOILUTSequence=[_item(**WINDOW)],
    PixelMeasuresSequence=[_item(PixelSpacing=[0.2, 0.3])],
)


@pytest.mark.parametrize(
    "elements",
    [
        {"WindowCenter": [7, 2048], "WindowWidth": [0, 4096]},
        {**WINDOW, "RescaleSlope": None, "RescaleIntercept": None},
        {**WINDOW, "RescaleSlope": 1, "RescaleIntercept": None},
        {**WINDOW, "VOILUTSequence": [_item()]},
        {**WINDOW, "VOILUTSequence": [_item(LUTExplanation="none")]},
        {**WINDOW, "ModalityLUTSequence": [_item()]},
        {"WindowCenter": "2048.0", "WindowWidth": "4096.0", "spelt": [(b".0", b",0")]},
        {**WINDOW, "RescaleSlope": "1.00", "RescaleIntercept": 0, "spelt": [(b"1.00", b"1,00")]},
        {**WINDOW, "VOILUTFunction": ""},
    ],
)
def test_what_is_empty_or_invalid_is_as_if_it_were_absent(read, elements):
    with images.quiet():
        picture = read(**BITS, **elements)
    np.testing.assert_array_equal(picture.pixels, _windowed(STORED))
    assert (picture.window, picture.bits) == ("window", 12)


def test_a_window_whose_centre_is_zero_is_one(read):
    signed = STORED.astype(np.int16) - 2048
    centred = read(signed, WindowCenter=0, WindowWidth=4096)
    np.testing.assert_array_equal(centred.pixels, _windowed(STORED))
    rescaled = read(**BITS, WindowCenter=0, WindowWidth=4096, RescaleIntercept=-2048)
    np.testing.assert_array_equal(rescaled.pixels, _windowed(STORED))


@pytest.mark.parametrize("group", ["SharedFunctionalGroups", "PerFrameFunctionalGroups"])
def test_rescale_window_and_spacing_are_found_in_functional_groups(read, group):
    picture = read(**BITS, NumberOfFrames=1, **{f"{group}Sequence": [GROUPS]})
    np.testing.assert_array_equal(picture.pixels, _windowed(STORED * 2.0 - 200))
    assert picture.spacing == (0.2, 0.3)


@pytest.mark.parametrize(
    ("dtype", "low", "limit", "bits"),
    [
        (np.uint16, 0, None, 12),
        (np.uint16, 65535, None, 16),
        (np.uint16, 4000, 4095, 12),
        (np.uint16, 65535, None, 12),  # Beyond the bits that are stored.
        (np.int16, -32768, None, 16),
    ],
)
def test_padding_is_black_and_no_percentile_counts_it(read, dtype, low, limit, bits):
    padded = np.full((40, 50), low, dtype)
    padded[:, 10:40] = STORED
    padded[:, -1] = low if limit is None else limit
    extent = {} if limit is None else {"PixelPaddingRangeLimit": limit}
    for photometric in ("MONOCHROME2", "MONOCHROME1"):
        picture = read(
            padded,
            BitsStored=bits,
            HighBit=bits - 1,
            PixelPaddingValue=low,
            PhotometricInterpretation=photometric,
            **extent,
        )
        inner = grey.to_uint8(STORED)
        inner = inner if photometric == "MONOCHROME2" else 255 - inner
        np.testing.assert_array_equal(picture.pixels, np.pad(inner, ((0, 0), (10, 10))))


def test_nothing_but_padding_is_refused(read):
    with pytest.raises(BadEntryError, match="nothing but padding"):
        read(np.full((4, 4), 9, np.uint16), PixelPaddingValue=9)


def test_bits_that_are_not_stored_are_no_pixel(read, tmp_path):
    overlay = np.zeros_like(STORED)
    overlay[5:9, 5:20] = 1 << 15
    np.testing.assert_array_equal(
        read(STORED | overlay, **BITS, **WINDOW).pixels, _windowed(STORED)
    )
    high = read(STORED << 4 | overlay >> 15, BitsStored=12, HighBit=15, **WINDOW)
    np.testing.assert_array_equal(high.pixels, _windowed(STORED))
    signed = (STORED.astype(np.int16) - 2048) & 0xFFF  # Without the sign in the upper bits.
    read_signed = read(signed, **BITS, WindowCenter=0, WindowWidth=4096)
    np.testing.assert_array_equal(read_signed.pixels, _windowed(STORED))
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    whole = np.tile(STORED, (2, 3))  # Smaller ones OpenJPEG does not compress.
    dataset.PixelData, dataset.PixelRepresentation = (whole | np.tile(overlay, (2, 3))).tobytes(), 0
    dataset.Rows, dataset.Columns = whole.shape
    dataset.WindowCenter, dataset.BitsStored, dataset.HighBit = 2048, 16, 15
    dataset.compress(pydicom.uid.JPEG2000Lossless)
    dataset.BitsStored, dataset.HighBit = 12, 11
    dataset.save_as(tmp_path / "a.dcm")
    pixels = images.read_image(tmp_path / "a.dcm").pixels
    np.testing.assert_array_equal(pixels, _windowed(whole))


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("packed", [False, True])
def test_lookup_tables_of_other_widths_are_read(read, bits, packed):
    most = (1 << bits) - 1
    table = np.rint(np.linspace(0, 1, 4000) ** 2 * most).astype("<u2")
    data = table.astype(np.uint8) if packed and bits == 8 else table
    item = _item(LUTDescriptor=[4000, 0, bits], LUTData=data.tobytes())
    picture = read(**BITS, VOILUTSequence=[item], **WINDOW)
    assert picture.window == "lookup table"
    np.testing.assert_allclose(picture.pixels, table[STORED] / most * 255, atol=0.5)


@pytest.mark.parametrize(
    ("descriptor", "data", "reason"),
    [
        ([4000, 0, 12], bytes(100), "lookup table cut"),
        ([4000, 0, 16], np.arange(4000, dtype="<u2").tobytes(), "uses fewer bits than it says"),
        ([4000, 0, 10], np.arange(4000, dtype="<u2").tobytes(), "holds larger numbers"),
        ([4000, 0, 20], np.arange(4000, dtype="<u2").tobytes(), "of 20 bits"),
    ],
)
def test_a_lookup_table_that_belies_itself_is_refused(read, descriptor, data, reason):
    with pytest.raises(BadEntryError, match=reason):
        read(**BITS, VOILUTSequence=[_item(LUTDescriptor=descriptor, LUTData=data)])


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        (
            {"WindowCenter": "1.024", "WindowWidth": 9, "spelt": [(b"1.024", b"1,024")]},
            "WindowCenter is no number",
        ),
        ({"RescaleSlope": "1.25", "spelt": [(b"1.25", b"1m25")]}, "RescaleSlope is no number"),
        ({"RescaleSlope": 0, "RescaleIntercept": 0}, "slope or intercept that makes no sense"),
        ({"BitsStored": 17}, "17 bits of 16"),
        ({"HighBit": 3}, "cannot be stored"),
    ],
)
def test_a_header_value_that_cannot_be_meant_is_named(read, elements, reason):
    with images.quiet(), pytest.raises(BadEntryError, match=reason):
        read(**elements)


@pytest.mark.parametrize(("name", "dtype"), [("Float", np.float32), ("DoubleFloat", np.float64)])
def test_float_pixels_are_windowed_as_others(read, tmp_path, name, dtype):
    read(**WINDOW)
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    for keyword in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(dataset, keyword)
    setattr(dataset, f"{name}PixelData", STORED.astype(dtype).tobytes())
    dataset.BitsAllocated = 8 * np.dtype(dtype).itemsize
    dataset.save_as(tmp_path / "a.dcm")
    picture = images.read_image(tmp_path / "a.dcm")
    np.testing.assert_array_equal(picture.pixels, _windowed(STORED))
    assert picture.bits == dataset.BitsAllocated


@pytest.mark.parametrize(("name", "dtype"), [("Float", np.float32), ("DoubleFloat", np.float64)])
def test_padding_of_float_pixels_is_black_and_not_counted(read, tmp_path, name, dtype):
    read()
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    for keyword in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(dataset, keyword)
    values = STORED.astype(dtype)
    values[:4] = -1e30
    setattr(dataset, f"{name}PixelData", values.tobytes())
    setattr(dataset, f"{name}PixelPaddingValue", float(dtype(-1e30)))
    dataset.BitsAllocated = values.itemsize * 8
    dataset.save_as(tmp_path / "a.dcm")
    pixels = images.read_image(tmp_path / "a.dcm").pixels
    assert not pixels[:4].any()
    np.testing.assert_array_equal(pixels[4:], grey.to_uint8(STORED[4:].astype(dtype)))


def test_how_pixels_are_coded_must_be_said_and_known(read, tmp_path, monkeypatch):
    read()
    path = tmp_path / "a.dcm"
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.MPEG2MPML
    dataset.PixelData = pydicom.encaps.encapsulate([bytes(100)])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)
    with pytest.raises(BadEntryError, match=r"compressed as MPEG2 .*not read here"):
        images.read_image(path)
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLSLossless
    dataset.save_as(path)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(BadEntryError, match=r"as JPEG-LS Lossless .* pip install pyjpegls"):
        images.read_image(path)


def test_a_file_without_a_transfer_syntax_says_so(read, tmp_path):
    read()
    path = tmp_path / "a.dcm"
    content = path.read_bytes()
    element = b"\x02\x00\x10\x00UI"
    at = content.index(element)
    path.write_bytes(content[: at + 4] + b"UI\x00\x00" + content[at + 8 + content[at + 6] :])
    with images.quiet(), pytest.raises(BadEntryError, match="without a transfer syntax"):
        images.read_image(path)


@pytest.mark.parametrize(
    ("centres", "widths"),
    [(r"\2048", r"50\4096"), (r"500\2048", r"\4096"), (r"\2048", r"\4096")],
)
def test_an_empty_part_of_a_window_takes_its_other_part_with_it(read, centres, widths):
    spelt = [
        (b"7777.0\\2222.0", centres.encode().ljust(13)),
        (b"8888.0\\3333.0", widths.encode().ljust(13)),
    ]
    picture = read(WindowCenter=[7777, 2222], WindowWidth=[8888, 3333], spelt=spelt, **BITS)
    np.testing.assert_array_equal(picture.pixels, _windowed(STORED))


def test_a_window_of_width_one_is_a_step(read):
    picture = read(**BITS, WindowCenter=2000, WindowWidth=1)
    np.testing.assert_array_equal(picture.pixels, np.where(STORED > 1999.5, 255, 0))
    assert picture.window == "window"


RAMP = list(map(int, np.linspace(0, 65535, 5000)))


@pytest.mark.parametrize("first", [-1000, 64536])
@pytest.mark.parametrize("intercept", [None, -400])
def test_no_pixel_decides_whether_a_table_begins_below_zero(read, first, intercept):
    item = pydicom.Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [5000, first, 16])
    item.add_new("LUTData", "US", RAMP)
    stored = STORED if intercept else STORED.astype(np.int16)
    bits = BITS if intercept else {}
    more = {} if intercept is None else {"RescaleSlope": 1, "RescaleIntercept": intercept}
    picture = read(stored + (400 if intercept else 0), VOILUTSequence=[item], **bits, **more)
    expected = np.array(RAMP)[STORED + 1000] / 257
    np.testing.assert_allclose(picture.pixels, expected, atol=0.51)


def test_a_table_for_large_values_without_sign_is_for_those(read):
    item = pydicom.Dataset()
    item.add_new("LUTDescriptor", "US", [5000, 40000, 16])
    item.add_new("LUTData", "US", RAMP)
    whole = {"WindowCenter": 32767.5, "WindowWidth": 65536, "VOILUTFunction": "LINEAR_EXACT"}
    picture = read(STORED + 40000, ModalityLUTSequence=[item], **whole)
    np.testing.assert_allclose(picture.pixels, np.array(RAMP)[STORED] / 257, atol=0.51)


def test_padding_that_no_pixel_of_so_many_bits_can_have_is_none(read):
    eight = (STORED >> 4).astype(np.uint8)
    eight[0, 0] = 255
    np.testing.assert_array_equal(read(eight, PixelPaddingValue=65535).pixels, eight)
