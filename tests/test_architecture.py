"""The layers of the package, enforced by reading the imports and calls of its source."""

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

TASKS = ("audit", "cohort", "distillation", "federation", "mixup", "segmentation")
# A module imports its own unit and units of the rows above: none beside it, none below.
ROWS = (
    {
        "__version__",
        "_check",
        "_lazy",
        "errors",
        "pytrees",
    },  # The first is a name of the package's root.
    {"runtime", "training"},
    {"storage"},
    {"convolution", "patching"},
    {"distill"},
    {"data", "models", "segmentation", "mixup"},
    {"package", "evaluation"},
    {"privacy"},
    {"federated"},
    {"report", "service"},
    {"jobs", "receive"},
    {f"tasks.{task}" for task in TASKS},
    {"plan"},
    {"cli"},
    {"__main__"},
)
ROW = {unit: row for row, units in enumerate(ROWS) for unit in units}

# The method receives functions; it knows neither networks nor images.
APART = {"distill": {"models", "data"}}

# What only the named units may import.
RESERVED = {
    "benchmarks": (),
    "flax.linen": ("models",),
    "flax.nnx": ("models",),
    "ml_collections": ("cli", "jobs", "plan", "tasks"),
}

# Costly or optional: imported inside the functions that need them.
HEAVY = {
    "array_record",
    "dp_accounting",
    "flwr",
    "grain",
    "matplotlib",
    "onnx",
    "pydicom",
    "safetensors",
    "tensorboardX",
    "tensorflow_datasets",
    "uvicorn",
}

DISK = (
    *("data", "federated.flower", "jobs", "package", "plan", "receive", "report", "service"),
    *("runtime.compile_cache", "runtime.hosts", "storage", "tasks"),
)
DISK_MODULES = {"http", "shutil", "socket", "tarfile", "tempfile", "urllib", "zipfile"}
DISK_CALLS = {
    *("open", "read_bytes", "read_text", "write_bytes", "write_text", "tofile", "fromfile"),
    *("mkdir", "makedirs", "rmdir", "touch", "unlink", "rename", "symlink_to"),
    *("savez", "savez_compressed", "savetxt", "loadtxt", "genfromtxt", "memmap"),
}
DISK_FUNCTIONS = {f"{np}.{name}" for np in ("np", "jnp", "numpy") for name in ("save", "load")}

LONGEST = 400  # lines of a file
SAY_NOTHING = {"found", "made", "mine", "one", "own", "thing"}
LONGEST_BODY = 50  # lines of a function, its docstring apart


def _within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def _imports(node: ast.AST, module: str, is_package: bool) -> list[str]:
    """The dotted names that an import statement brings in; none for another statement."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = node.module or ""
    if node.level:
        parents = module.split(".")
        kept = len(parents) - node.level + is_package
        base = ".".join([*parents[:kept], *filter(None, [base])])
    return [f"{base}.{alias.name}" for alias in node.names]


def _at_import(tree: ast.Module) -> Iterator[ast.AST]:
    """The nodes that run when the module is imported: not the bodies of functions."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            waiting.extend(node.orelse)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting.extend(ast.iter_child_nodes(node))


def unit_of(module: str) -> str:
    """The unit of a module of ours: the first name below the package, of a task the first two."""
    names = [*module.split(".")[1:3], "", ""]
    return ".".join(filter(None, names[:2] if names[0] == "tasks" else names[:1]))


def _import_faults(unit: str, name: str) -> Iterator[str]:
    for package, owners in RESERVED.items():
        if _within(name, package) and unit_of(f"gxdistill.{unit}").split(".")[0] not in owners:
            yield f"imports {package}, which is for {' and '.join(owners) or 'no module here'}"
    if not _within(name, "gxdistill"):
        return
    other = unit_of(name) or "the package's root"
    if other not in ROW:
        yield f"imports {name}: {other} is in no row; import from the module that defines it"
    elif other == unit:
        return
    elif ROW[other] == ROW[unit]:
        yield f"imports {other}, which stands beside it in row {ROW[unit]}"
    elif ROW[other] > ROW[unit]:
        yield f"imports {other} of row {ROW[other]}, below its own row {ROW[unit]}"
    elif other in APART.get(unit, ()):
        yield f"imports {other}, which {unit} must not know"


def _disk_faults(node: ast.AST, names: list[str]) -> Iterator[str]:
    for name in names:
        if name.split(".")[0] in DISK_MODULES:
            yield f"imports {name}: only {', '.join(DISK)} touch disk or network"
    if isinstance(node, ast.Call):
        called = ast.unparse(node.func)
        if called.rpartition(".")[2] in DISK_CALLS or called in DISK_FUNCTIONS:
            yield f"calls {called}: only {', '.join(DISK)} touch disk or network"


def _faults(path: Path, package: Path) -> Iterator[str]:
    """Where a module of the package breaks a rule, as `path:line: what`."""
    where = path.relative_to(package.parent)
    parts = where.with_suffix("").parts
    is_package = parts[-1] == "__init__"
    module = ".".join(parts[: len(parts) - is_package])
    if module == "gxdistill":
        return  # Re-exports lazily; see the last test.
    unit = unit_of(module)
    if unit == "tasks":
        return  # A docstring.
    if unit not in ROW:
        yield f"{where}:1: {unit} is in no row; add it to ROWS in tests/test_architecture.py"
        return
    tree = ast.parse(path.read_text(), str(path))
    free = any(_within(module, f"gxdistill.{name}") for name in DISK)
    at_import = set(_at_import(tree))
    for node in ast.walk(tree):
        names = _imports(node, module, is_package)
        faults = [fault for name in names for fault in _import_faults(unit, name)]
        if not free:
            faults += _disk_faults(node, names)
        if node in at_import:
            heavy = [name for name in names if name.split(".")[0] in HEAVY]
            faults += [f"imports {name} outside a function" for name in heavy]
        for fault in faults:
            yield f"{where}:{node.lineno}: {fault}"


def violations(package: Path) -> list[str]:
    """Every broken rule in the package's source."""
    return [fault for path in sorted(package.rglob("*.py")) for fault in _faults(path, package)]


def circles(package: Path) -> list[str]:
    """The modules that import each other in a circle, wherever in them the imports stand."""
    sources = {}
    for path in package.rglob("*.py"):
        parts = path.relative_to(package.parent).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        sources[".".join(parts[: len(parts) - is_package])] = path, is_package
    graph: dict[str, set[str]] = {module: set() for module in sources}
    for module, (path, is_package) in sources.items():
        for node in ast.walk(ast.parse(path.read_text(), str(path))):
            for name in _imports(node, module, is_package):
                known = name if name in sources else name.rpartition(".")[0]
                if known in sources and known not in (module, "gxdistill"):
                    graph[module].add(known)
    try:
        tuple(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def too_long(root: Path) -> list[str]:
    """The project's files of more lines than the house allows."""
    folders = ("benchmarks", "configs", "gxdistill", "tests")
    paths = [path for folder in folders for path in sorted((root / folder).rglob("*.py"))]
    lengths = {path.relative_to(root): len(path.read_text().splitlines()) for path in paths}
    return [f"{path}: {lines} lines" for path, lines in lengths.items() if lines > LONGEST]


def _functions(folder: Path) -> Iterator[tuple[str, ast.FunctionDef]]:
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(), str(path))):
            if isinstance(node, ast.FunctionDef):
                yield f"{path.relative_to(folder.parent)}:{node.lineno}: {node.name}", node


def long_bodies(folder: Path) -> list[str]:
    """The functions of more lines than the house allows."""
    names = []
    for name, node in _functions(folder):
        body = node.body[ast.get_docstring(node) is not None :]
        if body and body[-1].end_lineno - body[0].lineno >= LONGEST_BODY:
            names.append(name)
    return names


def job_takers(package: Path) -> list[str]:
    """The functions outside `jobs` and `tasks` that take a whole job."""
    return [
        name
        for name, node in _functions(package)
        if not name.startswith(("gxdistill/jobs/", "gxdistill/tasks/"))
        for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
        if argument.annotation is not None
        and re.search(r"\bJob\b", ast.unparse(argument.annotation))
    ]


def nameless(folder: Path) -> list[str]:
    """The bindings whose name says nothing of the value where a noun would."""
    faults = []
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(), str(path))):
            is_bound = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
            name = node.id if is_bound else getattr(node, "arg", getattr(node, "name", None))
            if name in SAY_NOTHING and not isinstance(node, ast.keyword):
                faults.append(f"{path.relative_to(folder.parent)}:{node.lineno}: {name}")
    return faults


def test_the_package_keeps_its_layers():
    faults = violations(ROOT / "gxdistill")
    assert not faults, "\n" + "\n".join(faults)


def test_no_modules_import_each_other_in_a_circle():
    assert circles(ROOT / "gxdistill") == []


def test_no_body_is_too_long_and_no_part_takes_the_whole_job():
    folders = (ROOT / "gxdistill", ROOT / "benchmarks")
    assert [name for folder in folders for name in long_bodies(folder)] == []
    assert job_takers(ROOT / "gxdistill") == []


def test_every_name_says_what_its_value_is(tmp_path):
    assert nameless(ROOT / "gxdistill") == []
    (tmp_path / "gxdistill").mkdir()
    source = "def one(own, *, mine=0):\n    found: int = own\n    return [made for made in found]\n"
    (tmp_path / "gxdistill/x.py").write_text(source)
    faults = [fault.split()[-1] for fault in nameless(tmp_path / "gxdistill")]
    assert sorted(faults) == ["found", "made", "mine", "one", "own"]


def test_a_long_body_and_a_function_of_a_job_are_caught(tmp_path):
    package = tmp_path / "gxdistill"
    (package / "report").mkdir(parents=True)
    (package / "report/page.py").write_text(
        'def f(job: "Job | None"):\n    """F."""\n' + "    x\n" * 51
    )
    (package / "jobs").mkdir()
    (package / "jobs/run.py").write_text("def g(job: Job):\n" + "    x\n" * 50)
    assert long_bodies(package) == ["gxdistill/report/page.py:1: f"]
    assert job_takers(package) == ["gxdistill/report/page.py:1: f"]


def test_no_file_is_too_long():
    faults = too_long(ROOT)
    assert not faults, f"more than {LONGEST} lines:\n" + "\n".join(faults)


@pytest.mark.parametrize(
    ("path", "source", "fault"),
    [
        ("patching.py", "from gxdistill import distill", "distill of row 4, below its own row 3"),
        ("patching.py", "from gxdistill.distill.unroll import unroll", "distill of row 4, below"),
        ("patching.py", "def f():\n    import gxdistill.cli", "2: imports cli of row 13, below"),
        ("data/source.py", "from ..package import load", "package of row 6, below its own row 5"),
        ("data/source.py", "from gxdistill.models import create", "models, which stands beside it"),
        ("models/__init__.py", "from .. import cli", "cli of row 13, below its own row 5"),
        ("distill/outer.py", "from gxdistill.models import create", "models of row 5, below"),
        ("distill/outer.py", "from gxdistill import data", "data of row 5, below its own row 4"),
        ("package/load.py", "from gxdistill import unroll", "import from the module that defines"),
        ("package/load.py", "import gxdistill", "the package's root is in no row"),
        ("package/load.py", "import benchmarks.record", "benchmarks, which is for no module here"),
        ("receive/networks.py", "import ml_collections", "ml_collections, which is for cli and"),
        ("receive/networks.py", "from gxdistill.jobs import job", "jobs, which stands beside it"),
        (
            "receive/networks.py",
            "from gxdistill.tasks.cohort import preparing",
            "tasks.cohort of row 11, below its own row 10",
        ),
        (
            "tasks/cohort/preparing.py",
            "from gxdistill.tasks.distillation import method",
            "tasks.distillation, which stands beside it",
        ),
        ("tasks/imaginary/stage.py", "", "tasks.imaginary is in no row; add it to ROWS"),
        (
            "evaluation/metrics.py",
            "from flax import linen as nn",
            "flax.linen, which is for models",
        ),
        (
            "report/page.py",
            "import matplotlib.pyplot as plt",
            "matplotlib.pyplot outside a function",
        ),
        (
            "data/dicom.py",
            "try:\n    import pydicom\nfinally: ...",
            "2: imports pydicom",
        ),
        ("patching.py", "def f(p):\n    return open(p)", "2: calls open: only data, federated"),
        ("patching.py", "def f(p):\n    return p.read_text()", "calls p.read_text"),
        ("patching.py", "def f(p, a):\n    np.save(p, a)", "calls np.save"),
        ("models/conv.py", "from PIL import Image\nImage.open('x')", "calls Image.open"),
        ("segmentation/tiling.py", "import urllib.request", "imports urllib.request: only data"),
        ("helpers.py", "", "helpers is in no row; add it to ROWS"),
    ],
)
def test_a_planted_violation_is_caught(tmp_path, path, source, fault):
    planted = tmp_path / "gxdistill" / path
    planted.parent.mkdir(parents=True, exist_ok=True)
    planted.write_text(source)
    faults = violations(tmp_path / "gxdistill")
    assert len(faults) == 1, faults
    assert faults[0].startswith(f"gxdistill/{path}:")
    assert fault in faults[0]


def test_what_the_rules_allow_passes(tmp_path):
    allowed = {
        "data/dicom.py": "from gxdistill import errors\ndef f(p):\n    import pydicom\n    open(p)",
        "distill/outer.py": "from gxdistill.distill.unroll import unroll\nfrom . import init",
        "report/page.py": "def f():\n    import matplotlib.pyplot",
        "service/server.py": "import http.server",
        "tasks/cohort/listing.py": "import ml_collections\nfrom gxdistill.data import source",
        "patching.py": "if TYPE_CHECKING:\n    import matplotlib\n'a'.replace('a', 'b')",
    }
    for path, source in allowed.items():
        planted = tmp_path / "gxdistill" / path
        planted.parent.mkdir(parents=True, exist_ok=True)
        planted.write_text(source)
    assert violations(tmp_path / "gxdistill") == []


def test_a_circle_is_caught(tmp_path):
    package = tmp_path / "gxdistill/data"
    package.mkdir(parents=True)
    (package / "a.py").write_text("from gxdistill.data import b")
    (package / "b.py").write_text("def f():\n    from gxdistill.data.c import g")
    (package / "c.py").write_text("from . import a")
    modules = {"gxdistill.data.a", "gxdistill.data.b", "gxdistill.data.c"}
    assert set(circles(tmp_path / "gxdistill")) == modules
    (package / "c.py").write_text("")
    assert circles(tmp_path / "gxdistill") == []


def test_a_long_file_is_caught(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/long.py").write_text("\n" * 401)
    (tmp_path / "configs/short.py").write_text("\n" * 400)
    assert too_long(tmp_path) == ["configs/long.py: 401 lines"]


def test_importing_the_package_costs_no_jax():
    code = (
        "import sys, gxdistill\n"
        "assert 'unroll' in dir(gxdistill)\n"
        "assert 'jax' not in sys.modules\n"
        "assert gxdistill.patch_corners((8, 8), 4, 2).shape == (9, 2)\n"
        "assert 'jax' in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
