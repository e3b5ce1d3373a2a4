"""HTML as nested calls, and how numbers are written for people."""

import html

_VOID = ("img", "meta")
NONE = "\N{EN DASH}"


class Markup(str):
    """Text that is HTML already; any other text is escaped where it enters a page."""

    __slots__ = ()


def join(*children: str) -> Markup:
    """Puts children one after another."""
    return Markup("".join(c if isinstance(c, Markup) else html.escape(c) for c in children))


def tag(name: str, /, *children: str, **attributes: object) -> Markup:
    """Makes an element.

    Args:
      name: of the element.
      *children: what is in it, in order.
      **attributes: `class_` stands for class and `data_label` for data-label; None leaves one out.

    Returns:
      Its HTML.
    """
    named = {key.strip("_").replace("_", "-"): value for key, value in attributes.items()}
    written = (f' {k}="{html.escape(str(v))}"' for k, v in named.items() if v is not None)
    opening = Markup(f"<{name}{''.join(written)}>")
    return opening if name in _VOID else join(opening, *children, Markup(f"</{name}>"))


def share(value: float) -> str:
    """Writes a share as a percentage: 0.943 is 94%."""
    return f"{100 * value:.0f}%"


def signed(value: float) -> str:
    """Writes two decimals with a true minus sign."""
    return f"{value:.2f}".replace("-", "\N{MINUS SIGN}")


def by(*sides: int) -> str:
    """Writes the sides of an image: 256 x 256."""
    return " \N{MULTIPLICATION SIGN} ".join(map(str, sides))


def count(number: int, noun: str, plural: str | None = None) -> str:
    """Writes a number with its noun: 1 image, 1,225 images."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def size(number: int) -> str:
    """Writes a number of bytes in three digits: 147 kB, 1.84 GB."""
    value, unit = float(number), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    digits = max(0, 2 - len(str(int(value))) + 1) if unit != "bytes" else 0
    return f"{value:.{digits}f} {unit}"
