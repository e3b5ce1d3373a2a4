"""Takes the figures of another machine into the results.

    python -m benchmarks.merge FOLDER     # FOLDER as `benchmarks.gpu --out` filled it
    python -m benchmarks.tables           # shows them

Each line is checked as when it was written, and names a commit that this repository knows. Lines
that are there already are not repeated; figures of a rehearsal are left out.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

from benchmarks.record import RESULTS, ROOT, Figure, read
from gxdistill.errors import UserError

REHEARSAL = "rehearsal_"  # What the names of its cases begin with.


def merge(folder: Path, results: Path = RESULTS) -> tuple[int, int]:
    """Appends the figures of a folder to the results.

    Args:
      folder: with files `<case>.jsonl`.
      results: where the lines lie.

    Returns:
      The numbers of figures that were appended and that were left out.

    Raises:
      UserError: a line is malformed, or of a commit that is not known here; nothing is written.
    """
    known = set(read(results)) if results.is_dir() else set()
    figures = read(folder)
    real = [figure for figure in figures if not figure.case.startswith(REHEARSAL)]
    fresh = [figure for figure in real if figure not in known]
    for commit in {figure.commit.removesuffix("+dirty") for figure in fresh}:
        _check_known(commit)
    results.mkdir(parents=True, exist_ok=True)
    for figure in fresh:
        _append(figure, results)
    return len(fresh), len(figures) - len(fresh)


def _append(figure: Figure, results: Path) -> None:
    with (results / f"{figure.case}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(dataclasses.asdict(figure)) + "\n")


def _check_known(commit: str) -> None:
    command = ["git", "cat-file", "-e", f"{commit}^{{commit}}"]
    if subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode:
        raise UserError(
            f"commit {commit} is not in this repository, so that nobody could measure again. "
            f"Fetch the branch that was measured first."
        )


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
    try:
        appended, left_out = merge(folder, given.results)
    except UserError as error:
        sys.exit(f"benchmarks.merge: {error}")
    print(f"{appended} figures appended to {given.results}, {left_out} left out")


if __name__ == "__main__":
    main()
