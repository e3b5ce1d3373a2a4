"""A page in its style: paper and ink, light or dark, wide or narrow, on screen or printed."""

from gxdistill.report.markup import Markup, tag

CSS = """
:root {
  color-scheme: light dark;
  --paper: #fcfbf7; --ink: #1f1e1b; --soft: #625e56; --rule: #dcd7cb; --tint: #f3f0e7;
  --ours: #0b6170; --ceiling: #8f5a00; --alarm: #a5161c; --alarm-tint: #fbeae7;
  --serif: Charter, "Bitstream Charter", "Iowan Old Style", "Sitka Text", Cambria,
    "Liberation Serif", serif;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --paper: #17181a; --ink: #e7e3da; --soft: #a8a297; --rule: #3b3b3d; --tint: #202224;
    --ours: #6fc6d3; --ceiling: #e0ad5b; --alarm: #ff938a; --alarm-tint: #33201f;
  }
}
* { box-sizing: border-box; }
html { background: var(--paper); -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; max-width: 71rem; padding: 4rem 2rem 5rem;
  color: var(--ink); font: 1.0625rem/1.55 var(--serif); overflow-wrap: break-word;
}
p { margin: 0 0 1rem; max-width: 40em; }
a { color: inherit; text-decoration-color: var(--soft); text-underline-offset: .15em; }
strong { font-weight: 600; }
h1, h2, h3 { font-weight: 600; line-height: 1.2; text-wrap: balance; }
h1 { font-size: 2.6rem; letter-spacing: -.015em; margin: 0 0 1.5rem; max-width: 20em; }
h2 { font-size: 1.2rem; margin: 0 0 1rem; }
h3 { font: 600 .9rem/1.4 var(--sans); margin: 0 0 .6rem; }
.kicker { color: var(--soft); font: .85rem/1.4 var(--sans); margin-bottom: .8rem; }
.verdict { font-size: 1.3rem; line-height: 1.5; max-width: 38em; }
.verdict strong { color: var(--ours); }
.note, figcaption, caption, .absent { color: var(--soft); font-size: .95rem; }
.absent { font-style: italic; }
nav { font: .85rem/1.9 var(--sans); margin: 2rem 0 0; }
nav a { margin-right: 1.4em; white-space: nowrap; color: var(--soft); }

section, aside { border-top: 1px solid var(--rule); margin-top: 3rem; padding-top: 1.4rem; }
@media (min-width: 60rem) {
  section, aside { display: grid; grid-template-columns: 11.5rem minmax(0, 1fr); gap: 0 2.5rem; }
  section > h2, aside > h2 { grid-row: 1 / span 40; }
  section > *, aside > * { grid-column: 2; }
  section > h2, aside > h2 { grid-column: 1; }
}
section > :last-child, aside > :last-child, .pair > * { margin-bottom: 0; }
aside { border-top: 3px solid var(--ink); background: var(--tint); margin-inline: -1.5rem;
  padding: 1.4rem 1.5rem; }
aside.alarm { border-color: var(--alarm); background: var(--alarm-tint); }
.warning { color: var(--alarm); font-weight: 600; }

figure { margin: 0 0 1.5rem; }
figcaption, caption { max-width: 44em; text-align: left; text-wrap: pretty; }
img { display: block; width: 100%; height: auto; background: #000; }
.plot { display: block; width: 100%; max-width: 30rem; height: auto; font-family: var(--sans); }
.plot * { stroke-linejoin: round; }
.pair { display: grid; gap: 1.5rem 2rem;
  grid-template-columns: repeat(auto-fit, minmax(min(19rem, 100%), 1fr)); }

.steps { display: grid; gap: 1.8rem 2.2rem; list-style: none; margin: 0 0 1rem; padding: 0;
  grid-template-columns: repeat(auto-fill, minmax(min(22rem, 100%), 1fr)); }
.steps h3 small { color: var(--soft); display: block; font-weight: 400; font-size: .8rem; }
.tiles { display: grid; gap: .9rem; grid-template-columns: repeat(auto-fill, minmax(6.5rem, 1fr)); }
.tile { margin: 0; max-width: 8rem; }
.tile img { image-rendering: pixelated; }
.thumbnails { display: grid; gap: 1.2rem 1.4rem;
  grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); }
.thumbnails.trio { grid-template-columns: repeat(3, minmax(0, 9.5rem)); margin-bottom: 1rem; }
.thumbnails figure { margin: 0; }
.thumbnails figcaption { font: .85rem/1.45 var(--sans); margin-top: .35rem; }
.bars { font: .72rem/1.25 var(--sans); list-style: none; margin: .45rem 0 0; padding: 0; }
.bars li { margin-bottom: .3rem; }
.bars span { display: flex; justify-content: space-between; gap: .3em; }
.bars b { font-weight: 400; overflow-wrap: anywhere; }
.bars i { font-style: normal; font-variant-numeric: tabular-nums; }
.bars svg { display: block; width: 100%; height: 4px; background: var(--rule); }
.bars rect { fill: var(--ours); }

table { border-collapse: collapse; font: .9rem/1.4 var(--sans); margin: 0 0 1.5rem; width: 100%;
  font-variant-numeric: tabular-nums lining-nums; }
caption { caption-side: bottom; font: .95rem/1.5 var(--serif); padding-top: .8rem; }
th, td { padding: .55rem .6rem; text-align: right; vertical-align: baseline; }
th:first-child, td:first-child { padding-left: 0; text-align: left; }
th:last-child, td:last-child { padding-right: 0; }
thead th { border-bottom: 1px solid var(--ink); font-weight: 600; vertical-align: bottom; }
tbody th { font-weight: 400; }
tbody tr + tr > *, tfoot tr > * { border-top: 1px solid var(--rule); }
tr.ours > * { color: var(--ours); font-weight: 600; }
tfoot tr > * { border-top-color: var(--ink); font-weight: 600; }
td small, th small { color: var(--soft); display: block; font-size: .78rem; font-weight: 400; }
td { white-space: nowrap; }
.facts { max-width: 36rem; }
.sub th { padding-left: 1.2rem !important; color: var(--soft); }

.case { border-top: 1px solid var(--rule); padding-top: 1.2rem; margin-bottom: 1.8rem;
  display: grid; gap: 1rem 1.4rem; grid-template-columns: 1fr 1fr minmax(12rem, .85fr); }
.case figure { margin: 0; }
.case figcaption, .case p { font: .85rem/1.45 var(--sans); }
.case figcaption { margin-top: .35rem; }
.case p { margin-bottom: .5rem; }
.layers { position: relative; display: block; }
.layers img + img { background: none; inset: 0; position: absolute; }
.case .decision { font-size: 1rem; font-weight: 600; }
.wrong { color: var(--alarm); }
.scale { display: block; width: 100%; max-width: 14rem; font: 9px var(--sans); overflow: visible; }
.scale line { stroke: var(--soft); } .scale text { fill: var(--ink); }
.scale .tau { stroke: var(--ceiling); } .scale text.tau-text { fill: var(--ceiling); }
.scale circle { fill: var(--ours); }
.zones { display: block; width: 100%; max-width: 16rem; font: 10px var(--sans); }
.zones rect { fill: var(--ours); } .zones .against { fill: var(--alarm); }
.zones text { fill: var(--ink); }
.legend { align-items: center; display: flex; flex-wrap: wrap; font: .85rem/1.4 var(--sans);
  gap: .4rem .7rem; margin-bottom: 1.2rem; }
.legend span { background-color: #555; height: .9rem; width: 9rem; }

dl { display: grid; font: .9rem/1.45 var(--sans); gap: .5rem 1.5rem; margin: 0 0 1.5rem;
  grid-template-columns: minmax(8rem, 12rem) minmax(0, 1fr); }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
details { margin: 0 0 1.2rem; } summary { cursor: pointer; font: .9rem/1.5 var(--sans); }
details > *:not(summary) { margin-top: .8rem; }
details td { white-space: normal; text-align: left; overflow-wrap: anywhere; }
details th { text-align: left; }
.references { padding-left: 1.2rem; } .references li { margin-bottom: .5rem; }

.views { display: grid; gap: .8rem 1rem; margin-bottom: 1.8rem;
  grid-template-columns: repeat(auto-fit, minmax(min(9rem, 45%), 1fr)); }
.views figure { margin: 0; }
.views figcaption { font: .85rem/1.45 var(--sans); margin-top: .35rem; }
.key { display: inline-block; height: .75em; width: .75em; margin-right: .35em; }

@media (max-width: 44rem) {
  body { font-size: 1rem; padding: 2rem 1.1rem 3rem; }
  h1 { font-size: 1.8rem; } .verdict { font-size: 1.12rem; }
  aside { margin-inline: -1.1rem; padding-inline: 1.1rem; }
  .tiles { gap: .7rem; grid-template-columns: repeat(auto-fill, minmax(6.2rem, 1fr)); }
  .case { gap: .6rem; grid-template-columns: 1fr 1fr; } .case > div { grid-column: 1 / -1; }
  /* Each row becomes a short list: nothing is left to scroll sideways. */
  .contest thead { clip-path: inset(50%); position: absolute; }
  .contest caption { padding: 0 0 1rem; }
  .contest :is(tbody, tfoot, tr, th, td, caption) { display: block; }
  .contest tr { border-top: 1px solid var(--ink); padding: .7rem 0; }
  .contest tr > * { border: 0 !important; padding: .15rem 0; }
  .contest tbody th { font-weight: 600; padding-bottom: .4rem; }
  .contest td { display: grid; gap: 0 .8rem; grid-template-columns: 1fr auto; text-align: left;
    justify-items: end; }
  .contest td::before { content: attr(data-label); font-weight: 400; justify-self: start; }
  .contest td small { grid-column: 2; text-align: right; }
  dl { display: block; } dd { margin: 0 0 .7rem; }
}
@media print {
  :root { --paper: #fff; }
  body { font-size: 10pt; max-width: none; padding: 0; }
  h1 { font-size: 20pt; } h2 { font-size: 12pt; } .verdict { font-size: 12pt; }
  aside { margin-inline: 0; padding: 1rem; }
  figure, tr, .case, .steps > li, aside { break-inside: avoid; } h2, h3 { break-after: avoid; }
  nav { display: none; } details::details-content { content-visibility: visible; }
  aside, img, .bars, .legend { print-color-adjust: exact; }
}
"""


def document(title: str, *parts: Markup) -> str:
    """Writes a whole page of one file: HTML, in this style.

    Args:
      title: of its tab.
      parts: of its body.
    """
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Markup(CSS)),
    )
    return f"<!DOCTYPE html>\n{tag('html', head, tag('body', *parts), lang='en')}\n"
