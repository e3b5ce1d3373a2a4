"""The tables of the READMEs, made from the recorded figures.

    python -m benchmarks.tables            # writes them
    python -m benchmarks.tables --check    # exits with status 1 if one is stale

A table stands between `<!-- table:NAME -->` and `<!-- /table -->`.
"""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import (
    accelerator,
    against_torch,
    compiled,
    federated_distillation,
    federation,
    mixup_privacy,
    plans,
    precision,
    prediction,
    private,
    profile_step,
    sharding,
    summary,
)
from benchmarks.record import RESULTS, ROOT, Figure, read
from benchmarks.summary import cell
from gxdistill.errors import UserError
from gxdistill.tasks.audit import judging


class Table(NamedTuple):
    """What a table shows: a row for each case and kind of device, a column for each metric."""

    cases: tuple[str, ...]
    metrics: tuple[str, ...]


TABLES = {
    "main_job": Table(
        cases=(
            *("radiograph_known", "radiograph_random", "radiograph_few"),
            *("demo", "demo_random"),
            "radiograph_known_from_noise",
            *("radiograph_known_cohort", "radiograph_random_cohort"),
            *("gastric_phantom_known", "gastric_phantom_random"),
        ),
        metrics=(
            *("hm", "auc", "balanced_patch_accuracy", "hm_share", "auc_share"),
            *("balanced_random_real", "balanced_random_real_soft", "balanced_class_means"),
            *("balanced_all_patches", "balanced_fresh_networks"),
            *("hm_at_package_tau", "package_bytes", "wall_s"),
        ),
    ),
    "external": Table(
        cases=("radiograph_to_shenzhen", "radiograph_to_montgomery"),
        metrics=(
            *("external_auc", "external_auc_ceiling", "external_auc_share"),
            *("external_auc_random_real", "external_auc_random_real_soft"),
            *("external_hm", "external_hm_unlabelled", "hm", "auc"),
        ),
    ),
    "mnist": Table(
        cases=(
            *("mnist_lenet_known_10", "mnist_lenet_known_5", "mnist_lenet_random_100"),
            *("mnist_convnet_random_10", "mnist_convnet128_random_10"),
        ),
        metrics=(
            "accuracy",
            "balanced_hard_labels",
            "balanced_shuffled",
            "balanced_fresh_networks",
            *("balanced_random_real", "balanced_random_real_soft"),
            "balanced_all_patches",
            "package_bytes",
            "wall_s",
        ),
    ),
    "mnist_elsewhere": Table(
        cases=tuple(
            f"mnist_convnet_random_10{other}" for other in ("", "_shuffled", "_lenet", "_resnet18")
        ),
        metrics=("accuracy",),
    ),
    "radiograph_elsewhere": Table(
        cases=tuple(f"radiograph_random{other}" for other in ("", "_lenet", "_resnet18")),
        metrics=("balanced_patch_accuracy", "accuracy", "hm", "auc"),
    ),
    "package_size": Table(
        cases=("package_size",),
        metrics=tuple(
            f"{metric}_{network}"
            for network in ("lenet", "convnet", "resnet18")
            for metric in (
                *("balanced_dense", "delta_ratio", "delta_loss"),
                *("balanced_replay", "replay_ratio", "replay_loss", "rounding_loss"),
            )
        ),
    ),
    "data_counts": Table(
        cases=("data_scale",),
        metrics=tuple(
            f"prepare_{name}"
            for name in (
                "images",
                *("irrelevant_patches", "non_gastritis_patches", "gastritis_patches"),
            )
        ),
    ),
    "data_scale": Table(
        cases=("data_scale",),
        metrics=(
            "prepare_images_per_s_of_2_cores",
            *(
                f"{feed}_{metric}"
                for feed in ("resident", "streaming")
                for metric in ("patches_per_cpu_s", "held_mb", "step_ratio")
            ),
            "streaming_of_4_times_the_images_held_mb",
        ),
    ),
    "sharding": Table(
        cases=("sharding",),
        metrics=tuple(f"max_difference_{count}" for count in sharding.COUNTS),
    ),
    "plan": Table(
        cases=("plan",),
        metrics=(
            *("temp_gb_h100", "temp_gb_a100", "temp_gb_v5e8", "temp_gb_v5p8"),
            *("inner_steps_300_h100", "inner_steps_300_v5e8", "sent_spread"),
            *("weak_scaling_256", "weak_scaling_256_radiograph"),
        ),
    ),
    "plan_targets": Table(
        cases=tuple(f"plan_{name}" for name in plans.TARGETS),
        metrics=(
            *("peak_gb_store", "peak_gb_recompute", "peak_gb_nested", "arguments_gb", "temp_gb"),
            *("tflop", "moved_gb", "sent_gb", "products_s", "memory_s", "links_s"),
            *("whole_run_h", "largest_batch"),
        ),
    ),
    "plan_seconds": Table(
        cases=("plan",),
        metrics=tuple(
            f"{what}_{name}" for name in plans.SMALL for what in ("cpu_s", "again_cpu_s")
        ),
    ),
    "accelerator": Table(
        cases=tuple(
            accelerator.case_of(config, target)
            for target in ("h100", "h200", "tpu-v5e-8")
            for config in accelerator.CONFIGS
        ),
        metrics=accelerator.SHOWN,
    ),
    "roofline": Table(
        cases=tuple(
            accelerator.case_of(config, target)
            for target in ("h100", "h200")
            for config in (
                *("gastric", "gastric_card_memory", "gastric_side_by_side"),
                *accelerator.CONFIGS[1:],
            )
        ),
        metrics=(
            *("median_s", "products_s", "memory_s", "expected_s", "utilisation"),
            *("bandwidth_share", "compile_s", "whole_run_h", "whole_run_price"),
        ),
    ),
    "compiled": Table(cases=tuple(map(compiled.case_of, compiled.SHOWN)), metrics=compiled.METRICS),
    "gpu_device": Table(
        cases=("gpu_device",), metrics=("memory_gb", "product_tflop_per_s", "copy_gb_per_s")
    ),
    "gpu_tests": Table(
        cases=("gpu_tests",), metrics=("passed", "failed", "error", "skipped", "not_run")
    ),
    "gpu_precision": Table(
        cases=("precision_demo",),
        metrics=("error_float32", "error_default", "error_bfloat16", "outside_tolerance"),
    ),
    "gpu_torch": Table(
        cases=tuple(f"gpu_torch_{row}" for row in ("convnet128_40x1_window20", "lenet_10x3")),
        metrics=(
            *("step_s", "torch_eager_step_s", "torch_compiled_step_s", "torch_graphs_step_s"),
            *("eager_ratio", "compiled_ratio", "graphs_ratio"),
            *("peak_mb", "torch_eager_peak_mb", "torch_compiled_peak_mb"),
        ),
    ),
    "accelerator_cpu": Table(
        cases=tuple(accelerator.case_of(config, "cpu") for config in accelerator.CPU_CONFIGS),
        metrics=accelerator.SHOWN,
    ),
    "precision": Table(
        cases=tuple(f"precision_{name}" for name in precision.ROWS),
        metrics=(
            *("error_float32", "error_bfloat16", "outer_steps"),
            *("balanced_float32", "balanced_bfloat16", "cpu_s_float32", "cpu_s_bfloat16"),
        ),
    ),
    "prediction": Table(
        cases=("prediction",),
        metrics=tuple(
            f"{metric}_{network}"
            for network in prediction.NETWORKS
            for metric in ("loop_patch_ms", "whole_patch_ms", "speedup")
        ),
    ),
    "burned_in": Table(
        cases=("burned_in",), metrics=("with_text_montgomery", "with_text_shenzhen")
    ),
    "private": Table(
        cases=tuple(private.CASES),
        metrics=tuple(
            f"{metric}_eps{epsilon}"
            for epsilon in private.EPSILONS
            for metric in ("accuracy", "auc", "hm_share", "package_bytes")
        ),
    ),
    "private_step": Table(
        cases=("private_step", "private_step_placedistilled"),
        metrics=("cpu_ratio", "plain_cpu_s", "private_cpu_s"),
    ),
    "segmentation": Table(
        cases=("segmentation_monuseg", "segmentation_hippocampus"),
        metrics=(
            *("dice", "jaccard", "accuracy", "hd95", "asd", "surface_dice"),
            *("dice_anterior", "dice_posterior", "wall_s"),
        ),
    ),
    "federation": Table(cases=federation.CASES, metrics=federation.SHOWN),
    "feddp": Table(
        cases=("feddp",), metrics=tuple(f"dice_eps{epsilon}" for epsilon in federation.EPSILONS)
    ),
    "federated_round": Table(cases=("federated_round",), metrics=("round_ratio", "private_ratio")),
    "federated_sites": Table(
        cases=("federated_sites",),
        metrics=tuple(
            f"{name}_{sites}_sites" for sites in (4, 64) for name in ("growth_mb", "updates_mb")
        ),
    ),
    "federated_distillation": Table(
        cases=("federated_distillation",), metrics=federated_distillation.METRICS
    ),
    "audit": Table(
        cases=("audit",),
        metrics=(
            *(f"null_auc_{name}" for name in judging.ATTACKS),
            *("null_empirical_epsilon", "planted_leak_auc", "planted_leak_power"),
            *(f"private_auc_{name}" for name in judging.ATTACKS),
            *("private_empirical_epsilon", "private_proven_epsilon"),
            *("demo_minutes", "demo_cpu_minutes"),
        ),
    ),
    "mixup_privacy": Table(cases=mixup_privacy.CASES, metrics=mixup_privacy.METRICS),
    "serving": Table(
        cases=("serving",),
        metrics=(
            *(
                "batching_gain",
                "cpu_gain",
                "network_gain",
                "requests_a_second",
                "median_ms",
                "p99_ms",
            ),
            *("images_a_batch", "compilations", "memory_growth"),
        ),
    ),
    "profile": Table(
        cases=tuple(map(profile_step.case_of, profile_step.SETTINGS)),
        metrics=("step_s", *profile_step.SHARES.values(), "share_products"),
    ),
    "against_torch": Table(
        cases=tuple(f"against_torch_{row.name}" for row in against_torch.ROWS),
        metrics=tuple(against_torch.UNITS),
    ),
}
NAMES = (*TABLES, summary.NAME)
PAGES = (ROOT / "README.md", ROOT / "benchmarks/README.md")

_MISSING = "not measured"
_OPEN = re.compile(r"<!-- table:(\w+) -->\n")
_CLOSE = "<!-- /table -->"


def _cell(figure: Figure | None) -> str:
    return _MISSING if figure is None else cell(figure)


def _rows(case: str, table: Table, figures: Sequence[Figure]) -> list[dict[str, Figure]]:
    """The latest figures by metric, apart for CPUs and for each kind of accelerator."""
    rows: dict[str, dict[str, Figure]] = {}
    for figure in figures:
        if figure.case == case and figure.metric in table.metrics:
            kind = figure.device.partition(":")[0]
            rows.setdefault(kind, {})[figure.metric] = figure
    return [rows[kind] for kind in sorted(rows)]


def _source(f: Figure) -> str:
    return (
        f"- `{f.case}`: `{f.command}` ({f.device}; jax {f.jax}; commit {f.commit}; {f.date[:10]})"
    )


def render(table: Table, figures: Sequence[Figure]) -> str:
    """Writes a table in Markdown, with the commands that measured it below.

    Args:
      table: what to show.
      figures: in the order in which they were measured; the latest counts.

    Returns:
      Lines, the last one ended. Of what has a row and a column, a figure never measured reads "not
      measured"; cases and metrics without any figure are named below.
    """
    rows = [(case, row) for case in table.cases for row in _rows(case, table, figures)]
    cases = {case for case, _ in rows}
    metrics = [name for name in table.metrics if any(name in row for _, row in rows)]
    heads = ("case", "device", *metrics)
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"] if rows else []
    sources: list[str] = []
    for case, row in rows:
        devices = "; ".join(sorted({figure.device for figure in row.values()}))
        cells = (_cell(row.get(metric)) for metric in metrics)
        lines.append(f"| {' | '.join((case, devices, *cells))} |")
        sources += dict.fromkeys(map(_source, row.values()))
    lines += ["", *sources] if rows else []
    absent = [name for name in table.cases if name not in cases]
    absent += [name for name in table.metrics if rows and name not in metrics]
    if absent:
        lines.append(f"- Not measured: {', '.join(f'`{name}`' for name in absent)}.")
    return "\n".join(lines) + "\n"


def _render_named(name: str, figures: Sequence[Figure]) -> str:
    if name == summary.NAME:
        return summary.render(summary.ROWS, figures)
    if name not in TABLES:
        raise UserError(f"no table is called {name!r}; known: {', '.join(NAMES)}.")
    return render(TABLES[name], figures)


def rewrite(text: str, figures: Sequence[Figure]) -> str:
    """Replaces each table between its markers by its present state.

    Raises:
      UserError: a marker names no table, or has no end.
    """
    parts, end = [], 0
    for marker in _OPEN.finditer(text):
        name, start = marker[1], marker.end()
        fresh = _render_named(name, figures)
        close = text.find(_CLOSE, start)
        if close < 0 or "<!-- table:" in text[start:close]:
            raise UserError(f"table {name!r} has no end; put {_CLOSE} below it.")
        parts += [text[end:start], "\n", fresh, "\n"]
        end = close
    return "".join([*parts, text[end:]])


def stale(pages: Sequence[Path], folder: Path) -> dict[Path, str]:
    """Finds the pages whose tables differ from the recorded figures, and what they should read.

    Raises:
      UserError: a recorded line or a marker is malformed.
    """
    figures = read(folder)
    texts = {page: page.read_text("utf-8") for page in pages}
    fresh = {page: rewrite(text, figures) for page, text in texts.items()}
    return {page: fresh[page] for page in pages if fresh[page] != texts[page]}


def main(argv: Sequence[str] | None = None) -> int:
    """Writes or checks the tables; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; 1 if one is stale")
    check = parser.parse_args(argv).check
    try:
        pages = stale(PAGES, RESULTS)
    except UserError as error:
        sys.exit(f"benchmarks.tables: {error}")
    for page, text in pages.items():
        if check:
            print(f"{page.relative_to(ROOT)} is stale; run: python -m benchmarks.tables")
            continue
        fresh = page.with_name(f".{page.name}.{os.getpid()}")
        fresh.write_text(text, "utf-8")
        fresh.replace(page)
    return int(check and bool(pages))


if __name__ == "__main__":
    sys.exit(main())
