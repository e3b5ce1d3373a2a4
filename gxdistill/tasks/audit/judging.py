"""From statistics to figures and verdicts, in the order of the European tests.

WP216 (2014) of the Article 29 Working Party asks of anonymous data whether a person can be singled
out, whether records of a person can be linked, and whether something can be inferred of a person;
EDPB opinion 28/2024 asks the same of models, with the means reasonably likely to be used.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from gxdistill.privacy.attacks import (
    canaries,
    inference,
    linkability,
    membership,
    reconstruction,
    scores,
)
from gxdistill.pytrees import Metadata
from gxdistill.tasks.audit.measuring import Measured

BOUNDS = (0.01, 0.001)  # Of false alarms.
_LEVEL = scores.LEVEL

# Which statistic an attack on membership looks at.
ATTACKS: dict[str, tuple[str, membership.Attack]] = {
    "lira_networks": ("likelihood", membership.lira),
    "rmia_networks": ("likelihood", membership.rmia),
    "lira_images": ("near", membership.lira),
    "loss": ("likelihood", membership.without_shadows),
}
# Of four attacks and the canaries, the best is looked at: each gets its share of the error.
EACH = 1 - (1 - _LEVEL) / (len(ATTACKS) + 1)


class Who(NamedTuple):
    """Of the measured patients, `[P]` each, and of the shadows.

    Attributes:
      members: who was in the package's training, bool.
      canary: number of the canary that a patient is, or -1.
      labels: of the patient.
      shadows: who was in which of K shadows, `[K, P]` bool.
    """

    members: np.ndarray
    canary: np.ndarray
    labels: np.ndarray
    shadows: np.ndarray


class Proven(NamedTuple):
    """What a ledger proves: epsilon, infinite where it proves nothing, delta and the unit."""

    epsilon: float
    delta: float
    unit: str


def attack_membership(
    target: np.ndarray,
    shadows: np.ndarray,
    who: Who,
    attack: membership.Attack,
    *,
    delta: float,
    level: float,
) -> Metadata:
    """Attacks the membership of patients, and tells how well.

    Args:
      target: a statistic under the package, `[P]`; no canaries.
      shadows: under K shadows, `[K, P]`.
      who: they are.
      attack: scores them.
      delta: of the guarantee that an empirical epsilon is held against.
      level: of intervals and of the bound on epsilon.

    Returns:
      `auc`, `rates`, `epsilon`, and `recipe`: the mean AUC of all shadows attacked in turn.
    """
    told = attack(target, shadows, who.shadows)
    inside, outside = told[who.members], told[~who.members]
    each = membership.each_left_out(attack, shadows, who.shadows)
    areas = np.array(
        [
            scores.auc(row[held], row[~held]).value
            for row, held in zip(each, who.shadows, strict=True)
        ]
    )
    return {
        "auc": scores.auc(inside, outside, level)._asdict(),
        "rates": [_rate(scores.rate_at(inside, outside, bound, level)) for bound in BOUNDS],
        "epsilon": scores.epsilon(inside, outside, delta=delta, level=level),
        "recipe": mean_of(areas)._asdict(),
    }


def _rate(rate: scores.Rate) -> Metadata:
    return {**rate._asdict(), "share": rate.share._asdict()}


def mean_of(values: np.ndarray) -> scores.Estimate:
    """Averages independent values, two or more, `[n]`; the interval is Student's."""
    from scipy.special import stdtrit

    n, mean = len(values), float(values.mean())
    half = float(stdtrit(n - 1, (1 + _LEVEL) / 2) * values.std(ddof=1) / math.sqrt(n))
    return scores.Estimate(mean, mean - half, mean + half)


def singling_out(measured: Measured, who: Who, *, proven: Proven | None) -> Metadata:
    """Can a patient be told from those who had no part, or be seen in a distilled image?

    All intervals and bounds are of the level `EACH`, so that the best may be looked at.
    """
    real, delta = who.canary < 0, proven.delta if proven else 0.0
    patients = Who(who.members[real], who.canary[real], who.labels[real], who.shadows[:, real])
    attacks = {
        name: attack_membership(
            getattr(measured, statistic)[0, real],
            getattr(measured, statistic)[1:, real],
            patients,
            attack,
            delta=delta,
            level=EACH,
        )
        for name, (statistic, attack) in ATTACKS.items()
    }
    count = {"members": int(patients.members.sum()), "others": int((~patients.members).sum())}
    ceilings = {
        name: scores.ceiling(*count.values(), chosen=chosen, delta=delta, level=EACH)
        for name, chosen in (("chosen", True), ("fixed", False))
    }
    return {
        **count,
        "level": EACH,
        "delta": delta,
        "attacks": attacks,
        "epsilon": max(figures["epsilon"] for figures in attacks.values()),
        "ceiling": ceilings["chosen"],
        "ceiling_of_a_fixed_threshold": ceilings["fixed"],
        "canaries": _canaries(measured, who, delta),
        "reconstruction": _reconstruction(measured, who),
    }


def _canaries(measured: Measured, who: Who, delta: float) -> Metadata | None:
    """What the canaries' coins prove, of each kind and of those of one id; None without any.

    A duplicated one is several patients, whom an epsilon of one patient does not cover.
    """
    first = np.flatnonzero((who.canary >= 0) & (np.r_[-1, who.canary[:-1]] != who.canary))
    if not len(first):
        return None
    each = len(first) // len(canaries.KINDS)
    told, coins = {}, {}
    for i, kind in enumerate(canaries.KINDS):
        part = first[i * each : (i + 1) * each]
        all_coins = who.shadows[:, part]
        told[kind] = canaries.ratios(measured.likelihood[1:, part], all_coins)
        coins[kind] = all_coins[-len(told[kind]) :]
    for of in (told, coins):
        of["single"] = np.concatenate([of[kind] for kind in canaries.SINGLE], axis=1)
    return {name: _counted(told[name], coins[name], delta) for name in told}


def _counted(told: np.ndarray, coins: np.ndarray, delta: float) -> Metadata:
    counted = canaries.count(told, coins, delta=delta, level=EACH)
    return {**dataclasses.asdict(counted), "share": counted.share._asdict()}


def balanced(who: Who, seed: int) -> np.ndarray:
    """Draws as many members as others, no canaries, of whom the nearest may be compared.

    Returns:
      Numbers of patients, in order.
    """
    sides = [np.flatnonzero((who.canary < 0) & (who.members == side)) for side in (True, False)]
    rng, count = np.random.default_rng((seed, 3)), min(map(len, sides))
    return np.sort(np.concatenate([rng.permutation(side)[:count] for side in sides]))


def _reconstruction(measured: Measured, who: Who) -> Metadata:
    """How near distilled images are to members, beside as many others; by each measure."""
    chosen = balanced(who, 0)
    members, outcome = who.members[chosen], {}
    for name, distances in measured.distances.items():
        near = distances[:, chosen]
        ratios = reconstruction.nearer_to_members(near, members)
        patients = -near.min(axis=0)  # A patient counts by the image that is nearest.
        outcome[name] = {
            "images": len(ratios),
            "nearer_to_a_member": int((ratios < 1).sum()),
            "smallest_ratio": float(ratios.min()),
            "member": float(near[:, members].min()),
            "other": float(near[:, ~members].min()),
            "auc": scores.auc(patients[members], patients[~members], EACH)._asdict(),
        }
    return outcome


def linkable(measured: Measured, who: Who) -> Metadata | None:
    """Are two records of a member easier to link through the package than those of another?"""
    chosen = (who.canary < 0) & np.isfinite(measured.records).all(axis=(0, 2))
    members = who.members[chosen]
    if members.sum() < 2 or (~members).sum() < 2:
        return None
    ranks = linkability.linked(*measured.records[:, chosen])
    return {
        "members": int(members.sum()),
        "others": int((~members).sum()),
        "rank_of_members": float(ranks[members].mean()),
        "rank_of_others": float(ranks[~members].mean()),
        "auc": scores.auc(ranks[members], ranks[~members])._asdict(),
    }


def inferable(measured: Measured, who: Who) -> Metadata | None:
    """Is the label of a member told more often than that of another?"""
    chosen = (who.canary < 0) & (measured.guesses >= 0)
    members, right = who.members[chosen], (measured.guesses == who.labels)[chosen]
    if not members.any() or members.all():
        return None
    sides = {
        name: (int(right[side].sum()), int(side.sum()))
        for name, side in (("members", members), ("others", ~members))
    }
    return {
        **{name: inference.wilson(*counts)._asdict() for name, counts in sides.items()},
        "counts": {name: list(counts) for name, counts in sides.items()},
        "difference": inference.difference(*sides["members"], *sides["others"])._asdict(),
    }


def judge(measured: Measured, who: Who, proven: Proven | None) -> Metadata:
    """Puts all figures together, with a verdict for each test.

    Args:
      measured: statistics of patients and canaries.
      who: they are.
      proven: by the package's ledger; None where it has none.
    """
    tests: dict[str, Any] = {
        "singling_out": singling_out(measured, who, proven=proven),
        "linkability": linkable(measured, who),
        "inference": inferable(measured, who),
    }
    return {
        "proven": None if proven is None else _finite(proven),
        "tests": tests,
        "verdicts": {name: VERDICTS[name](figures) for name, figures in tests.items()},
    }


def _finite(proven: Proven) -> Metadata:
    spent = None if math.isinf(proven.epsilon) else proven.epsilon
    return {**proven._asdict(), "epsilon": spent}


def refuted(result: Mapping[str, Any]) -> str | None:
    """Says by what the proven epsilon is refuted; None where it is not, or nothing is proved.

    All bounds hold together with 95%: of twenty sound packages one may seem refuted.
    """
    proven, outcome = result["proven"], result["tests"]["singling_out"]
    if proven is None or proven["epsilon"] is None or proven["unit"] != "patient":
        return None
    planted = outcome["canaries"]
    bounds = {"membership of patients": outcome["epsilon"]}
    if planted is not None:
        bounds["canaries"] = planted["single"]["epsilon"]
    for name, bound in bounds.items():
        if bound > proven["epsilon"]:
            return (
                f"The attack on {name} proves an epsilon of at least {bound:.2f} at delta "
                f"{proven['delta']:g}, and the ledger says {proven['epsilon']:.2f}. One of them "
                f"is wrong: do not pass the package on before it is known which."
            )
    return None


def _interval(figure: Mapping[str, float]) -> str:
    return f"{figure['value']:.2f} ({figure['low']:.2f} to {figure['high']:.2f})"


def _on_singling_out(outcome: Metadata) -> Metadata:
    lines = [
        _on_membership(outcome),
        _on_epsilon(outcome["epsilon"]),
        _on_canaries(outcome["canaries"]),
        _on_reconstruction(outcome["reconstruction"]),
    ]
    return {
        "leaks": any(leak for leak, _ in lines),
        "words": " ".join(words for _, words in lines if words),
    }


def _on_membership(outcome: Metadata) -> tuple[bool, str]:
    name, best = max(outcome["attacks"].items(), key=lambda item: item[1]["auc"]["low"])
    area, sides = best["auc"], f"{outcome['members']} members and {outcome['others']} others"
    if area["low"] > 0.5:
        return True, (
            f"Members were told from others better than by chance: AUC {_interval(area)} by "
            f"{NAMES[name]}, {sides}."
        )
    highest = max(part["auc"]["high"] for part in outcome["attacks"].values())
    return False, (
        f"None of the {len(outcome['attacks'])} attacks told members from others better than "
        f"chance would, {sides}. That their AUC is up to {highest:.2f} cannot be excluded."
    )


def _on_epsilon(bound: float) -> tuple[bool, str]:
    return bound > 0, f"Epsilon is at least {bound:.2f}." if bound > 0 else ""


def _on_canaries(planted: Metadata | None) -> tuple[bool, str]:
    bound = 0.0 if planted is None else planted["single"]["epsilon"]
    return bound > 0, f"Canaries betray an epsilon of at least {bound:.2f}." if bound > 0 else ""


def _on_reconstruction(measures: Metadata) -> tuple[bool, str]:
    near = [name for name, figures in measures.items() if figures["auc"]["low"] > 0.5]
    if near:
        return True, f"Distilled images lie nearer to members than to others in {_and(near)}."
    return False, "Distilled images were not found to lie nearer to members than to others."


def _and(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _on_linkability(outcome: Metadata | None) -> Metadata:
    if outcome is None:
        words = "Not tested: too few patients have patches for two records."
        return {"leaks": None, "words": words}
    area, leaks = outcome["auc"], outcome["auc"]["low"] > 0.5
    if leaks:
        words = (
            f"Records of members are easier to link than those of others: AUC {_interval(area)}."
        )
    else:
        words = (
            f"Records of members were not easier to link than those of others. That the AUC is up "
            f"to {area['high']:.2f} cannot be excluded."
        )
    return {"leaks": leaks, "words": words}


def _on_inference(outcome: Metadata | None) -> Metadata:
    if outcome is None:
        return {"leaks": None, "words": "Not tested: no patient has a patch that has a label."}
    gap, leaks = outcome["difference"], outcome["difference"]["low"] > 0
    rates = f"{100 * outcome['members']['value']:.0f}% of members and "
    rates += f"{100 * outcome['others']['value']:.0f}% of others"
    if leaks:
        words = f"The label was told right of {rates}: more often of members than of others."
    else:
        words = (
            f"The label was told right of {rates}, which was not more often of members. A "
            f"difference of up to {100 * gap['high']:.0f} points cannot be excluded."
        )
    return {"leaks": leaks, "words": words}


VERDICTS: dict[str, Callable[[Any], Metadata]] = {
    "singling_out": _on_singling_out,
    "linkability": _on_linkability,
    "inference": _on_inference,
}
NAMES = {
    "lira_networks": "LiRA on networks from the package",
    "rmia_networks": "RMIA on networks from the package",
    "lira_images": "LiRA on the distilled images themselves",
    "loss": "the loss of networks from the package, without shadows",
}
