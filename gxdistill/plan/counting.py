"""What a compiled program moves and sends: loops counted as often as they run.

A compiler's own cost analysis counts a loop's body once, or is missing. Bytes are counted in the
compiled program, after fusion.
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

# Of one value, in bits.
_BITS = {"pred": 8, "bf16": 16, **{f"{kind}{n}": n for kind in "fsu" for n in (4, 8, 16, 32, 64)}}
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\](?:\{([^}]*)\})?")
_LINE = re.compile(r"^\s+(ROOT )?%?([\w.-]+) = (.*)$")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")
_OPERATION = re.compile(r"(?:^|[\s)}])([a-z][\w-]*)\(")
# Name what lies somewhere, and move nothing.
_FREE = {
    *("parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all"),
    *("opt-barrier", "partition-id", "replica-id", "iota"),
}
_PARTS = ("slice", "dynamic-slice", "gather")  # Of their first operand they read what they give.
_SENDING = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


class Traffic(NamedTuple):
    """Bytes of one run of a program on one device.

    Attributes:
      moved: between the device and its memory.
      sent: to add up or hand over to other devices, the size of what is handed.
    """

    moved: float
    sent: float


class Operation(NamedTuple):
    """One operation of a compiled program.

    Attributes:
      name: in its computation.
      kind: as XLA calls it: "fusion", "while", "custom-call", ...
      result: types and layouts of what it gives.
      operands: names of what it takes.
      inside: what stands in its brackets.
      rest: its attributes.
      root: whether it gives the result of its computation.
    """

    name: str
    kind: str
    result: str
    operands: tuple[str, ...]
    inside: str
    rest: str
    root: bool


def traffic(text: str, unknown: float = 1.0) -> Traffic:
    """Counts the bytes that a compiled program moves and sends.

    Args:
      text: of the optimised program, as XLA prints it.
      unknown: as for `products`.
    """
    computations, entry = parse(text)

    def of(name: str) -> Traffic:
        moved = sent = 0.0
        by_name = {operation.name: operation for operation in computations[name]}
        for operation in computations[name]:
            kind = operation.kind
            if kind in ("while", "call", "conditional", "async-start"):
                called = _called(operation, "body|to_apply|calls|true_computation")
                inner = [of(other) for other in called if other in computations]
                turns = _turns(operation, computations, unknown) if kind == "while" else 1
                moved += turns * sum(loop.moved for loop in inner)
                sent += turns * sum(loop.sent for loop in inner)
            elif kind not in _FREE and not kind.endswith("-done"):
                moved += _moved(operation, by_name, computations)
                if kind.removesuffix("-start") in _SENDING:
                    sent += sum(_bytes(by_name[o].result, fast=True) for o in operation.operands)
        return Traffic(moved, sent)

    return of(entry)


def parse(text: str) -> tuple[dict[str, list[Operation]], str]:
    """Reads a compiled program as XLA prints it.

    Returns:
      The operations of each computation, and the name of the one that is the program.
    """
    computations: dict[str, list[Operation]] = {}
    name = entry = ""
    for line in text.splitlines():
        if head := _HEAD.match(line):
            name = head[2]
            computations[name] = []
            entry = name if head[1] else entry
        elif name and (match := _LINE.match(line)):
            computations[name].append(_operation(match))
    return computations, entry


def _operation(match: re.Match) -> Operation:
    opening = _OPERATION.search(match[3])
    if opening is None:
        return Operation(match[2], "constant", "", (), "", "", bool(match[1]))
    depth, end = 1, opening.end()
    while depth and end < len(match[3]):
        depth += {"(": 1, ")": -1}.get(match[3][end], 0)
        end += 1
    inside, rest = match[3][opening.end() : end - 1], match[3][end:]
    operands = tuple(re.findall(r"%([\w.-]+)", inside))
    result = match[3][: opening.start(1)]
    return Operation(match[2], opening[1], result, operands, inside, rest, bool(match[1]))


def _called(operation: Operation, role: str) -> list[str]:
    return re.findall(rf"\b(?:{role})=%?([\w.-]+)", operation.rest)


def _turns(operation: Operation, computations: dict[str, list[Operation]], unknown: float) -> float:
    known = re.search(r'"known_trip_count":\{"n":"(\d+)"', operation.rest)
    if known:
        return int(known[1])
    # A TPU's compiler does not tell; but a count that is fixed stands alone in the condition.
    conditions = (computations.get(name, []) for name in _called(operation, "condition"))
    ends = [o.inside for o in next(conditions, []) if o.kind == "constant"]
    return int(ends[0]) if len(ends) == 1 and ends[0].isdigit() else unknown


def _bytes(result: str, *, fast: bool = False) -> float:
    """Adds up the arrays of a type; with `fast` also those in a chip's own fast memory, S(1)."""
    total = 0.0
    for dtype, shape, layout in _ARRAY.findall(result):
        if fast or "S(1)" not in layout:
            total += math.prod(map(int, filter(None, shape.split(",")))) * _BITS.get(dtype, 0) / 8
    return total


def _moved(
    operation: Operation,
    by_name: dict[str, Operation],
    computations: dict[str, list[Operation]],
) -> float:
    inputs = [_bytes(by_name[o].result) if o in by_name else 0.0 for o in operation.operands]
    result = _bytes(operation.result)
    if operation.kind.endswith("-start") and operation.result.startswith("("):
        # The operands are repeated in it; what is fetched may be a slice of them.
        whole = sum(_bytes(by_name[o].result, fast=True) for o in operation.operands)
        fetched = _bytes(operation.result, fast=True) - whole
        return max(result - sum(inputs), 0.0) + min(sum(inputs), fetched)
    if operation.kind in _PARTS:
        return result + min(_bytes(operation.result, fast=True), inputs[0])
    if operation.kind == "dynamic-update-slice":
        return 2 * inputs[1]
    fused = _called(operation, "calls")
    if operation.kind != "fusion" or not fused or fused[0] not in computations:
        return result + sum(inputs)
    body = computations[fused[0]]
    slots = {o.name: int(o.inside) for o in body if o.kind == "parameter"}
    for name, slot in slots.items():
        parts = [_part(user, name) for name, user in _users(body, name)]
        if parts and None not in parts:
            inputs[slot] = min(inputs[slot], sum(filter(None, parts)))
    within = {o.name: o for o in body}
    written = [within[o.operands[1]] for o in body if o.kind == "dynamic-update-slice"]
    if written:
        result = min(result, sum(_bytes(o.result) for o in written))
    return result + sum(inputs)


def _users(body: list[Operation], name: str) -> Iterator[tuple[str, Operation]]:
    """Finds what uses a value, by whatever name."""
    for user in body:
        if name in user.operands:
            # In a fusion, another layout is another name: a TPU's bear this mark.
            if user.kind in ("bitcast", "copy") or "output_to_operand_aliasing" in user.rest:
                yield from _users(body, user.name)
            else:
                yield name, user


def _part(user: Operation, name: str) -> float | None:
    """Bytes that are read of a value; None for all."""
    if user.operands[:1] != (name,):
        return None
    if user.kind == "dynamic-update-slice":
        return 0.0
    return _bytes(user.result) if user.kind in _PARTS else None
