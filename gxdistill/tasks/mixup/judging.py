"""The attacks on mixtures in the shape of an audit: means, tests, verdicts, what was not tested."""

from gxdistill.package import guarantee
from gxdistill.package.mixup_file import MixupManifest
from gxdistill.pytrees import Metadata
from gxdistill.tasks.mixup.attacking import KNOWN

_MEANS = (
    "All mixtures that a client sends of a patient, and when it sends them.",
    "Both sides' files but for the references, this program, and the law of lambda.",
    "Raw images of other patients of the same kind, by which a network learns to separate.",
    "A gallery of raw images in which the patient is one of as many as were measured.",
    f"For the attack by {KNOWN} alone, the volumes that clients draw their references from.",
)
_NOT_TESTED = (
    "Attackers who train for longer, on more patients, or to find and not to rebuild them.",
    "What the server's answer tells of a patient: it holds the organ's outline, as does the mask.",
    "Images of the patient of another day, or from another machine, as a gallery.",
    "What the networks' weights tell of the patients that they were trained on.",
)
_UNTESTED = {
    "linkability": "Not tested: whether two mixtures of one patient are seen to be of one. A "
    "client sends one mixture of a patient, unless it is told otherwise.",
    "inference": "Not tested: whether something else than a patient's identity is inferred.",
}


def audit(
    manifest: MixupManifest, digest: str, singling_out: Metadata, *, patients: int
) -> Metadata:
    """Puts what attacks found into the shape of `audit.json`.

    Args:
      manifest: of the client's file.
      digest: of that file.
      singling_out: `attacks` by name, see `attacking.figures`, `ms_ssim_of_mean_patient` and
        `exposure`.
      patients: that were measured.

    Returns:
      The keys of an audit of a package that have a meaning here.
    """
    return {
        "name": manifest.name,
        "package": digest,
        "privacy": manifest.privacy,
        "proven": None,
        "guarantee": guarantee(None),
        "means": list(_MEANS),
        "tests": {
            "singling_out": {"members": patients, **singling_out},
            **dict.fromkeys(_UNTESTED),
        },
        "verdicts": {
            "singling_out": _verdict(singling_out, patients),
            **{name: {"leaks": None, "words": words} for name, words in _UNTESTED.items()},
        },
        "not_tested": list(_NOT_TESTED),
    }


def _verdict(outcome: Metadata, patients: int) -> Metadata:
    """Says who is found with and without knowing the references, and what is rebuilt."""
    attacks = outcome["attacks"]
    chance = 1 / patients

    def words_of(name: str) -> str:
        share = attacks[name]["precision_at_1"]
        return f"{share['value']:.1%} ({share['low']:.1%} to {share['high']:.1%})"

    best = max((name for name in attacks if name != KNOWN), key=lambda n: _value(attacks[n]))
    leaks = any(figures["precision_at_1"]["low"] > chance for figures in attacks.values())
    clearest = max(attacks, key=lambda name: attacks[name]["ms_ssim"])
    return {
        "leaks": leaks,
        "words": (
            f"A server that knows no reference finds {words_of(best)} of {patients} patients in a "
            f"gallery of raw images, by {best}; one that knows them finds {words_of(KNOWN)}; "
            f"chance is {chance:.1%}. The clearest that was rebuilt, by {clearest}, has an MS-SSIM "
            f"of {attacks[clearest]['ms_ssim']:.2f}; the mean of training patients, which no "
            f"mixture is needed for, has {outcome['ms_ssim_of_mean_patient']:.2f}."
        ),
    }


def _value(attack: Metadata) -> float:
    return float(attack["precision_at_1"]["value"])
