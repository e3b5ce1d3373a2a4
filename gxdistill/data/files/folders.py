"""Which files of a folder are a user's, and which a system or a tool left there."""

import os
from collections.abc import Sequence
from pathlib import Path

_TOOLS = ("__MACOSX", "__pycache__", "$RECYCLE.BIN", "System Volume Information", "lost+found")
_LEFT = ("thumbs.db", "desktop.ini", "ehthumbs.db")


def is_left_by_tools(name: str) -> bool:
    """Tells whether a file or folder is hidden or a system's: `.Trash`, `Thumbs.db`."""
    return name.startswith((".", "~$")) or name in _TOOLS or name.lower() in _LEFT


def list_files(folder: Path) -> tuple[list[Path], int]:
    """Lists the files below a folder, by name; links to folders are not followed.

    Args:
      folder: to look through.

    Returns:
      The files, and the number of entries that were passed over, a folder counted once.
    """
    files, passed = [], 0
    for at, folders, names in os.walk(folder):
        kept = [name for name in folders if not is_left_by_tools(name)]
        taken = [name for name in names if not is_left_by_tools(name)]
        passed += len(folders) - len(kept) + len(names) - len(taken)
        folders[:] = kept
        files += [path for name in taken if (path := Path(at, name)).is_file()]
    return sorted(files), passed


def count_passed(passed: int, folders: Sequence[Path]) -> str:
    """Says for people how many entries were passed over."""
    return f"{passed} hidden or system entries of {', '.join(map(str, folders))} are passed over"
