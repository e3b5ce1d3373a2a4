"""Takes the figures of another machine into the results.

    python -m benchmarks.merge FOLDER     # FOLDER as `benchmarks.gpu --out` filled it
    python -m benchmarks.tables           # shows them

Each line is checked as when it was written, and names a commit that this repository knows; where
the sources that were measured, listed in FOLDER/sources.json, are not those of that commit, it is
marked "+dirty". Lines that are there already are not repeated; figures of a rehearsal are left out.
"""

import argparse
import dataclasses
import fnmatch
import hashlib
import json
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.record import EXPORTED, NOT_SOURCES, RESULTS, ROOT, SOURCES, Figure, read
from gxdistill.errors import UserError

REHEARSAL = "rehearsal_"  # What the names of its cases begin with.
_DIRTY = "+dirty"


def list_sources(root: Path = ROOT) -> dict[str, str]:
    """Lists the files that figures depend on, with what git would call their contents."""
    blobs = {}
    for name in SOURCES:
        path = root / name
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            relative = file.relative_to(root).as_posix()
            if file.is_file() and _is_source(relative):
                content = file.read_bytes()
                head = f"blob {len(content)}\0".encode()
                blobs[relative] = hashlib.sha1(head + content).hexdigest()
    return blobs


def _is_source(path: str) -> bool:
    parts = path.split("/")
    if "__pycache__" in parts or path == EXPORTED:  # Which `git archive` writes anew.
        return False
    return not any(
        fnmatch.fnmatch(path, pattern) or path.startswith(f"{pattern}/") for pattern in NOT_SOURCES
    )


def sources_of(commit: str) -> dict[str, str]:
    """Lists the same of a commit of this repository.

    Raises:
      UserError: the commit is not known.
    """
    command = ["git", "ls-tree", "-r", commit, "--", *SOURCES]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(
            f"commit {commit} is not in this repository, so that nobody could measure again. "
            f"Fetch the branch that was measured first."
        )
    lines = (line.split("\t") for line in done.stdout.splitlines())
    return {path: about.split()[2] for about, path in lines if _is_source(path)}


def merge(
    folder: Path, results: Path = RESULTS, measured: Mapping[str, str] | None = None
) -> tuple[int, int]:
    """Appends the figures of a folder to the results.

    Args:
      folder: with files `<case>.jsonl`.
      results: where the lines lie.
      measured: the sources that were measured, as `list_sources` lists them; None where git told
        the commit.

    Returns:
      The numbers of figures that were appended and that were left out.

    Raises:
      UserError: a line is malformed, or of a commit that is not known here; nothing is written.
    """
    known = set(read(results)) if results.is_dir() else set()
    figures = [_portable(figure) for figure in read(folder)]
    real = [figure for figure in figures if not figure.case.startswith(REHEARSAL)]
    commits = {figure.commit.removesuffix(_DIRTY) for figure in real}
    marks = {commit: _mark(commit, measured) for commit in commits}
    marked = [
        dataclasses.replace(figure, commit=figure.commit.removesuffix(_DIRTY) + _DIRTY)
        if marks[figure.commit.removesuffix(_DIRTY)]
        else figure
        for figure in real
    ]
    fresh = [figure for figure in marked if figure not in known]
    results.mkdir(parents=True, exist_ok=True)
    for figure in fresh:
        _append(figure, results)
    return len(fresh), len(figures) - len(fresh)


def _portable(figure: Figure) -> Figure:
    """Leaves out of a command where its lines were to go: a folder of the other machine."""
    words = shlex.split(figure.command)
    kept = [word for word in words if not word.startswith("--results=")]
    return figure if kept == words else dataclasses.replace(figure, command=shlex.join(kept))


def _append(figure: Figure, results: Path) -> None:
    with (results / f"{figure.case}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(dataclasses.asdict(figure)) + "\n")


def _mark(commit: str, measured: Mapping[str, str] | None) -> bool:
    """Tells whether other sources were measured than the commit's."""
    sources = sources_of(commit)
    return measured is not None and dict(measured) != sources


def main() -> None:
    """Merges, and says how much."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--results", type=Path, default=RESULTS, help="where lines are appended")
    given = parser.parse_args()
    inner = given.folder / "results"
    folder = inner if inner.is_dir() else given.folder
    if not folder.is_dir():
        sys.exit(f"benchmarks.merge: {folder} is no folder.")
    listed = given.folder / "sources.json"
    measured = json.loads(listed.read_text("utf-8")) if listed.exists() else None
    try:
        appended, left_out = merge(folder, given.results, measured)
    except UserError as error:
        sys.exit(f"benchmarks.merge: {error}")
    print(f"{appended} figures appended to {given.results}, {left_out} left out")


if __name__ == "__main__":
    main()
