"""A program that decodes compressed DICOM pixels: `decoding` runs it apart and may lose it.

Says that it is ready, in a line. Reads file names from the standard input, one a line, in JSON;
answers each with a line of JSON, the dtype, shape and length of the pixels, or null for what cannot
be decoded, and then the pixels.
It imports nothing of gxdistill, so that it starts from any folder.
"""

import json
import resource
import sys

import numpy as np

_MEMORY = 1 << 30  # Bytes of addresses; more is a decompression bomb.


def decode(name: str) -> np.ndarray:
    """Decodes the pixels of a DICOM file by the one decoder meant for its compression.

    All are free to use anywhere: GDCM, CharLS and OpenJPEG. Without a name pydicom would try any
    that is installed, among them some that make half an image of half a file.

    Args:
      name: of the file.

    Returns:
      Stored values, `[H, W]` integer.
    """
    from pydicom import dcmread, uid
    from pydicom.pixels.utils import pixel_array

    dataset = dcmread(name)
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax == uid.JPEGExtended12Bit and dataset.BitsStored > 8:
        return _decode_12_bits(name, (dataset.Rows, dataset.Columns))
    plugins = {uid.JPEGLSLossless: "pyjpegls", uid.JPEGLSNearLossless: "pyjpegls"}
    plugins |= dict.fromkeys(uid.JPEG2000TransferSyntaxes, "pylibjpeg")
    return pixel_array(dataset, decoding_plugin=plugins.get(syntax, "gdcm"))


def _decode_12_bits(name: str, shape: tuple[int, int]) -> np.ndarray:
    # pydicom does not trust GDCM with these. GDCM gives the very pixels that libjpeg-turbo gives.
    import gdcm

    reader = gdcm.ImageReader()
    reader.SetFileName(name)
    if not reader.Read():
        raise ValueError("GDCM cannot read the file")
    content = reader.GetImage().GetBuffer().encode("utf-8", "surrogateescape")
    return np.frombuffer(content, "<u2").reshape(shape)


def main() -> None:
    """Answers until the standard input ends."""
    import pydicom.pixels  # noqa: F401  (takes a second, which no file is to be charged with)

    sys.stdout.buffer.write(b"ready\n")
    sys.stdout.buffer.flush()
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    for line in sys.stdin:
        try:
            values = np.ascontiguousarray(decode(json.loads(line)))
            answer = {"dtype": values.dtype.str, "shape": values.shape, "bytes": values.nbytes}
        except Exception:  # Damaged bytes make decoders raise nearly anything.
            values, answer = np.empty(0, np.uint8), None
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
        sys.stdout.buffer.write(values.data)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
