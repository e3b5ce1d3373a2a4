"""Settings as people type them behind a flag: lists with commas, mappings by key, None."""

import ast
from collections.abc import Mapping

import ml_collections

from gxdistill.jobs.settings import Setting


def mapping_of(name: str, known: Mapping[str, Setting]) -> str | None:
    """Returns the mapping that a dotted name adds a key to, as `data.columns.image`; else None."""
    parent, _, key = name.rpartition(".")
    is_key = key and parent in known and known[parent].kind is ml_collections.ConfigDict
    return parent if is_key else None


def is_free_text(name: str, text: str, known: Mapping[str, Setting]) -> bool:
    """Tells whether `change` reads a text for a setting: of a tuple, of a mapping, or None."""
    if mapping_of(name, known):
        return True
    setting = known.get(name)
    if setting is None:
        return False
    is_none = setting.optional and text.lower() == "none"
    return is_none or setting.kind in (tuple, ml_collections.ConfigDict)


def change(
    config: ml_collections.ConfigDict, name: str, text: str, known: Mapping[str, Setting]
) -> None:
    """Changes a setting of a config by a text as people write it, see `is_free_text`.

    Args:
      config: is changed.
      name: dotted, of a setting or of a key of a mapping.
      text: `a,b` or `(1, 2)` for a tuple, `key=value,key=value` or `{}` for a mapping, or None.
      known: all settings, by dotted name.

    Raises:
      ValueError: a mapping is not written so.

    Example:
      `change(config, "data.columns.patient", "id", TABLE.settings)`
    """
    at = mapping_of(name, known) or name
    *parents, last = at.split(".")
    section = config
    for parent in parents:
        section = section[parent]
    if at != name:
        value: object = {**section[last].to_dict(), name.rpartition(".")[2]: _literal(text)}
    elif known[name].optional and text.lower() == "none":
        value = None
    elif known[name].kind is tuple:
        value = _read_items(text, known[name])
    else:
        value = _read_mapping(name, text)
    with section.unlocked():
        if isinstance(value, dict):
            # Values of another type than a key had before are the user's to give.
            section[last] = ml_collections.ConfigDict()
        section[last] = ml_collections.ConfigDict(value) if isinstance(value, dict) else value


def _literal(text: str) -> object:
    """Reads a number, a tuple, True, False or None; any other text stays as it is."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def _read_items(text: str, setting: Setting) -> tuple:
    default = setting.default if isinstance(setting.default, tuple) else ()
    are_names = bool(setting.choices) or any(isinstance(item, str) for item in default)
    whole = _literal(text)
    if isinstance(whole, tuple | list):
        items = tuple(whole)
    elif text.lower() in ("", "none"):
        return ()
    else:
        parts = [part.strip() for part in text.split(",")]
        items = tuple(part if are_names else _literal(part) for part in parts if part)
    return tuple(map(str, items)) if are_names else items


def _read_mapping(name: str, text: str) -> dict:
    whole = _literal(text)
    if isinstance(whole, dict):
        return whole
    if text.lower() in ("", "none"):
        return {}
    pairs = [part.partition("=") for part in text.split(",")]
    if any(not sign for _, sign, _ in pairs):
        raise ValueError(f"{name}={text!r}; write KEY=VALUE,KEY=VALUE, or {{}} for none.")
    return {key.strip(): _literal(value.strip()) for key, _, value in pairs}
