"""Ways to harm a package: blindly, and as one who knows how to make it whole again."""

import io
import json
import random
import zipfile

from gxdistill import storage
from gxdistill.package import content

ABSURD = (
    *(None, True, -1, 0, 2**31, 2**63, 10**18, 10**400, 1e308, -0.0, 0.5, 3),
    *("", "a", "a\x1b[2J", "../../x", "__import__('os').system('true')", "x" * 20_000),
    *([], [[]], {}, {"a": {"b": [1]}}, [10**12], [2**62, 2**62], [1] * 40),
)


def _files(sound):
    return {name: bytes(part) for name, part in storage.unpack(sound, "sound").items()}


def _whole(files, *, sums=True):
    """Packs files, by custom with sums that agree; names may be such as no archive should hold."""
    if sums:
        files[content.SUMS] = content.sums(files)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as file:
        for name in sorted(files):
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 3, 0o100644 << 16
            file.writestr(info, files[name])
    return buffer.getvalue()


def flipped(rng, sound, _):
    raw = bytearray(sound)
    for _ in range(rng.choice((1, 1, 1, 2, 8, 100))):
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    return bytes(raw)


def cut(rng, sound, _):
    return sound[: rng.randrange(len(sound))]


def grown(rng, sound, _):
    at, size = rng.randrange(len(sound) + 1), rng.choice((1, 22, 1000, 10**6))
    return sound[:at] + rng.choice((bytes(size), rng.randbytes(size), sound)) + sound[at:]


def moved(rng, sound, _):
    a, b, c = sorted(rng.randrange(len(sound)) for _ in range(3))
    return sound[:a] + sound[b:c] + sound[a:b] + sound[c:]


def noise(rng, *_):
    return rng.choice((b"", b"PK\3\4", b"PK\5\6")) + rng.randbytes(rng.randrange(5000))


def swapped(rng, sound, _):
    files = _files(sound)
    one, two = rng.sample(sorted(files.keys() - {content.SUMS}), 2)
    files[one], files[two] = files[two], files[one]
    return _whole(files)


def foreign(rng, sound, other):
    files, others = _files(sound), _files(other)
    # Not of a list that holds an array with what declares it: that would be another whole package.
    name = rng.choice(sorted(n for n in files if n.startswith("arrays/")))
    files[name] = others[name]
    return _whole(files)


def missing(rng, sound, _):
    files = _files(sound)
    del files[rng.choice(sorted(files))]
    return _whole(files)


def added(rng, sound, _):
    files = _files(sound)
    names = ("../x", "/tmp/x", "a/../../x", "a\\b", "CON", "x.py", "inner.gxd", "arrays/x")
    names += "arrays/state/x/0", "arrays/state/images/.zattrs", "previews/x.png", content.SIGNATURE
    files[rng.choice(names)] = rng.choice((b"", b"x", rng.randbytes(64), sound, bytes(2 << 20)))
    return _whole(files)


def damaged(rng, sound, _):
    """One file has other bytes, and the sums agree."""
    files = _files(sound)
    name = rng.choice(sorted(files))
    files[name] = rng.choice((flipped, cut, grown, noise))(rng, files[name] + b"\0", None)
    return _whole(files)


def _edited(rng, value, depth=0):
    """Changes one value somewhere in JSON."""
    if not isinstance(value, dict | list) or not value or (depth and rng.random() < 0.2):
        return rng.choice(ABSURD)
    places = list(value) if isinstance(value, dict) else range(len(value))
    place = rng.choice(list(places))
    if rng.random() < 0.1:
        value.pop(place)
    elif isinstance(value, dict) and rng.random() < 0.1:
        value[rng.choice(("x", "../x", "a\nb", "images.x", "start", ""))] = rng.choice(ABSURD)
    else:
        value[place] = _edited(rng, value[place], depth + 1)
    return value


def edited(rng, sound, _, *, sums=False):
    files = _files(sound)
    name = rng.choice(sorted(n for n in files if n.endswith((".json", ".zarray", "METADATA"))))
    value = _edited(rng, json.loads(files[name]))
    files[name] = json.dumps(value).encode()
    return _whole(files, sums=sums)


def forged(rng, sound, _):
    """Edited, and made whole again: that may be another sound package."""
    return edited(rng, sound, _, sums=True)


def deep(rng, sound, _):
    files, levels = _files(sound), rng.choice((10, 100, 1000, 100_000))
    name = rng.choice(("manifest.json", "arrays/state/images/.zarray"))
    files[name] = rng.choice((b"[", b'{"a":', b'{"settings":[')) * levels
    return _whole(files)


def enormous(rng, sound, _):
    """Declares arrays of a size that nobody has."""
    files = _files(sound)
    manifest = json.loads(files["manifest.json"])
    entry = manifest["arrays"][rng.choice(sorted(manifest["arrays"]))]
    entry["shape"] = [rng.choice((10**6, 2**31, 2**53, 0)) for _ in range(rng.randrange(1, 6))]
    entry["dtype"] = rng.choice(("float32", "float64", "bool"))
    files["manifest.json"] = json.dumps(manifest).encode()
    return _whole(files)


def nested(rng, sound, other):
    inner = rng.choice((sound, other))
    return rng.choice((sound + inner, storage.pack({"p.gxd": inner}), inner[:100] + sound))


def lying(rng, sound, _):
    """A header or the directory says another size, offset, method or flag than what is there."""
    raw, at = bytearray(sound), rng.choice((0, sound.rindex(b"PK\1\2"), len(sound) - 22))
    at += rng.randrange(4, 22)
    size = min(rng.choice((1, 2, 4)), len(raw) - at)
    raw[at : at + size] = rng.choice((b"\xff" * 4, bytes(4), rng.randbytes(4)))[:size]
    return bytes(raw)


KINDS = (
    *(flipped, cut, grown, moved, noise, swapped, foreign, missing, added, damaged, edited, edited),
    *(forged, forged, forged, deep, enormous, nested, lying),
)


def mutate(rng: random.Random, sound: bytes, other: bytes):
    """Returns what was done, and the bytes of a package that may be harmed."""
    kind = rng.choice(KINDS)
    return kind.__name__, kind(rng, sound, other)
