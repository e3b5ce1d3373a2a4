import html.parser
import re

import numpy as np
import pytest

from gxdistill.privacy.attacks import scores
from gxdistill.report import audit_page
from gxdistill.report.sections.audit import Pair, Side
from gxdistill.tasks.audit import judging
from gxdistill.tasks.audit.judging import Proven, Who
from gxdistill.tasks.audit.measuring import Measured

P, K, M = 60, 12, 5


def _result(*, leak=0.0, proven=None, records=True):
    """A result whose attacks see a gap of `leak` deviations between members and others."""
    rng = np.random.default_rng(0)
    runs = rng.random((1 + K, P)) < 0.5
    canary = np.r_[np.full(P - 6, -1), np.arange(6)]
    members = runs[0] & (canary < 0)
    likelihood, near = rng.normal(size=(2, 1 + K, P)) + leak * runs
    distances = {
        name: np.abs(rng.normal(2 - leak / 4 * members, 0.1, (M, P)))
        for name in ("pixels", "structure", "features")
    }
    both = rng.normal(size=(2, P, M))
    both = both if records else np.full_like(both, np.nan)
    labels = rng.integers(0, 2, P)
    guesses = np.where(rng.random(P) < 0.8, labels, 1 - labels)
    nearest = np.zeros((M, P), int)
    measured = Measured(likelihood, near, distances, nearest, both, guesses, np.arange(M))
    judged = judging.judge(measured, Who(members, canary, labels, runs[1:]), proven)
    about = {
        "name": "<tiny>",
        "package": "0" * 64,
        "privacy": "None.",
        "guarantee": "as it says",
        "started_from": "noise",
    }
    return {**about, "shadows": K, "means": ["A & B."], "not_tested": ["C < D."], **judged}


class _Text(html.parser.HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.words, self.open = [], []
        self.feed(page)

    def handle_starttag(self, tag, _):
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def _text(page):
    parsed = _Text(page)
    assert not parsed.open
    return re.sub(r"\s+", " ", " ".join(parsed.words))


def test_the_tests_stand_in_the_european_order_with_their_verdicts():
    result = _result()
    page = audit_page.page(result, [])
    order = [page.index(f'id="{key}"') for key in ("means", "singling_out", "linkability")]
    order += [page.index(f'id="{key}"') for key in ("inference", "not-tested")]
    assert order == sorted(order)
    text = _text(page)
    for verdict in result["verdicts"].values():
        assert verdict["words"] in text
        assert not verdict["leaks"]
    assert "No leak was found by the attacks that were tried" in text
    assert "No formal guarantee" in text
    assert "A & B." in text
    assert "C < D." in text
    assert "cannot be excluded" in result["verdicts"]["singling_out"]["words"]
    assert "<script" not in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)


def test_empirical_epsilon_stands_beside_the_proven_one_and_the_ceiling():
    result = _result(leak=6.0, proven=Proven(0.2, 1e-3, "patient"))
    found, text = result["tests"]["singling_out"], _text(audit_page.page(result, []))
    count = found["members"], found["others"]
    ceiling = scores.ceiling(*count, chosen=True, delta=1e-3, level=0.99)
    assert found["ceiling"] == pytest.approx(ceiling)
    assert 0.5 * ceiling < found["epsilon"] <= ceiling + 1e-12
    assert "if the sender's ledger is right: as it says." in text
    assert f"at least {found['epsilon']:.2f}" in text
    assert f"{ceiling:.2f}, of a perfect attack" in text
    assert "Leaks were found: singling out" in text
    assert "Distilled images lie nearer to members" in text
    assert f"Epsilon is at least {found['epsilon']:.2f}." in text
    planted = found["canaries"]["single"]["epsilon"]
    assert planted > 0
    assert f"Canaries betray an epsilon of at least {planted:.2f}." in text
    assert "membership of patients proves" in judging.refuted(result)


def test_a_ledger_that_proves_nothing_says_so():
    result = _result(proven=Proven(float("inf"), 1e-3, "patient"))
    assert result["proven"]["epsilon"] is None
    assert "The ledger proves nothing" in _text(audit_page.page(result, []))


def test_what_could_not_be_tested_is_no_verdict():
    result = _result(records=False)
    assert result["verdicts"]["linkability"]["leaks"] is None
    assert "Not tested: too few patients" in _text(audit_page.page(result, []))


def test_pairs_are_drawn_with_the_patients_name():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 1), np.uint8)
    side = Side(pixels, "<patient 7>", 1.25)
    page = audit_page.page(_result(), [Pair(pixels / 255.0, side, side)])
    assert page.count("<img") == 3
    assert "&lt;patient 7&gt;, distance 1.25" in page
    assert "These are patients" in page
