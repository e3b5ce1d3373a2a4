"""The audit's page, in the order of the European tests: for those who answer for the patients."""

from collections.abc import Sequence

from gxdistill.pytrees import Metadata
from gxdistill.report.markup import Markup, count, join, tag
from gxdistill.report.sections import audit
from gxdistill.report.style import document

_TESTS = {
    "singling_out": ("Singling out", audit.singling_out),
    "linkability": ("Linkability", audit.linkability),
    "inference": ("Inference", audit.inference),
}


def page(result: Metadata, pairs: Sequence[audit.Pair]) -> str:
    """Writes the page of an audit: one file that asks nothing of any network and runs no script.

    Args:
      result: what `audit.json` holds.
      pairs: nearest pairs, which show patients; none leaves them out.
    """
    title = _title(result)
    links = (
        join(tag("a", text, href=f"#{key}"), " ")
        for key, text in (
            ("means", "Assumed means"),
            *((key, text) for key, (text, _) in _TESTS.items()),
            ("not-tested", "Not tested"),
        )
    )
    header = tag(
        "header",
        tag("p", f"gxdistill audit: {result['name']}", class_="kicker"),
        tag("h1", title),
        tag("p", *_summary(result), class_="verdict"),
        tag("nav", *links, aria_label="Sections"),
    )
    sections = [_section("means", "Assumed means", *audit.means(result))]
    for key, (text, make) in _TESTS.items():
        verdict, figures = result["verdicts"][key], result["tests"][key]
        kind = "warning" if verdict["leaks"] else None
        body = () if figures is None else make(figures, result)
        sections.append(_section(key, text, tag("p", verdict["words"], class_=kind), *body))
        if key == "singling_out" and pairs:
            sections.append(_section("pairs", "Nearest pairs", *audit.pairs(pairs)))
    sections.append(_section("not-tested", "Not tested", *audit.not_tested(result)))
    main = tag("main", audit.guarantee(result), *sections)
    return document(f"{result['name']}: {title}", header, main)


def _section(key: str, text: str, *body: Markup) -> Markup:
    return tag("section", tag("h2", text, id=key), *body, aria_labelledby=key)


def _title(result: Metadata) -> str:
    leaks = [_TESTS[key][0] for key, v in result["verdicts"].items() if v["leaks"]]
    if not leaks:
        return "No leak was found by the attacks that were tried"
    return f"Leaks were found: {', '.join(leaks).lower()}"


def _summary(result: Metadata) -> list[str]:
    outcome = result["tests"]["singling_out"]
    return [
        f"The package was attacked with {count(result['shadows'], 'shadow cohort')}, "
        f"{count(outcome['members'], 'member')} and {count(outcome['others'], 'other patient')}. ",
        "An audit measures attacks that are known; it proves no absence of leaks. ",
    ]
