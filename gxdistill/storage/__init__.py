"""What touches the disk: files and folders at one stroke, trees of arrays by Orbax."""

from gxdistill.storage.arrays import Digests, load_arrays, restore_like, save_arrays
from gxdistill.storage.files import (
    check_seal,
    find_folder,
    fresh_folder,
    json_text,
    read_json,
    remove_folder,
    seal,
    tidy,
    write_arrays,
    write_bytes,
    write_json,
    write_text,
)

__all__ = [
    "Digests",
    "check_seal",
    "find_folder",
    "fresh_folder",
    "json_text",
    "load_arrays",
    "read_json",
    "remove_folder",
    "restore_like",
    "save_arrays",
    "seal",
    "tidy",
    "write_arrays",
    "write_bytes",
    "write_json",
    "write_text",
]
