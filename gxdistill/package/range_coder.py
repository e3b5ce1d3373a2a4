"""Whole numbers in about as many bits as their entropy: an adaptive binary range coder.

A number is told by answers: is it 0? negative? is its size 1? 2? and so on. Each answer narrows an
interval by how often that question had this answer before, which writer and reader count alike, in
whole numbers: they agree on every machine. Bytes that the interval's two ends share are written.

Martin 1979, "Range encoding"; without carries, as Subbotin 1999 does it; questions with counts of
their own as in Marpe et al. 2003, https://doi.org/10.1109/TCSVT.2003.815173.
"""

import numpy as np

LARGEST = 31  # Size of a number.
_QUESTIONS = 16  # With counts of their own: zero, sign, sizes; the last is for all further sizes.
_COUNTED = 2**12  # Then counts are halved.
_FULL, _TOP, _BOTTOM = 2**32 - 1, 2**24, 2**16


class _Interval:
    """What all answers so far lead to: the whole numbers from `low`, `size` of them."""

    def __init__(self) -> None:
        self.low, self.size = 0, _FULL
        self._counts = [[1, 1] for _ in range(_QUESTIONS)]

    def split(self, question: int) -> int:
        """Returns how much of the size is for a yes."""
        no, yes = self._counts[question]
        return self.size * yes // (no + yes)

    def take(self, question: int, answer: bool) -> bytes:
        """Narrows to an answer; returns the bytes that are now settled."""
        split, counts = self.split(question), self._counts[question]
        self.low, self.size = (self.low, split) if answer else (self.low + split, self.size - split)
        counts[answer] += 2
        if sum(counts) > _COUNTED:
            counts[:] = [(count + 1) // 2 for count in counts]
        settled = bytearray()
        while (shared := (self.low ^ (self.low + self.size)) < _TOP) or self.size < _BOTTOM:
            if not shared:
                self.size = -self.low % _BOTTOM  # Up to where the next byte changes.
            settled.append(self.low >> 24)
            self.low, self.size = (self.low << 8) & _FULL, (self.size << 8) & _FULL
        return bytes(settled)


def encode(values: np.ndarray) -> bytes:
    """Writes whole numbers from -31 to 31; how many there are, the reader must know."""
    interval, written = _Interval(), bytearray()
    for value in values.tolist():
        size = abs(value)
        answers = [(0, size == 0)]
        if size:
            answers += [(1, value < 0)]
            answers += [(_of_size(n), n == size) for n in range(1, min(size + 1, LARGEST))]
        for question, answer in answers:
            written += interval.take(question, answer)
    # The shortest end that lies in the interval: the reader goes on with zeros.
    low, size = interval.low, interval.size
    ends = (-(-low >> bits) << bits for bits in (24, 16, 8, 0))
    last = next(end for end in ends if end < low + size)
    return bytes(written + last.to_bytes(4)).rstrip(b"\0")


def decode(content: bytes, count: int) -> np.ndarray:
    """Reads `count` numbers, `[count]` int32, also a stranger's: any bytes are some numbers."""
    interval, place, at = _Interval(), int.from_bytes(content[:4].ljust(4, b"\0")), 4

    def ask(question: int) -> bool:
        nonlocal place, at
        answer = place - interval.low < interval.split(question)
        for _ in interval.take(question, answer):
            place = (place << 8) & _FULL | (content[at] if at < len(content) else 0)
            at += 1
        return answer

    values = np.zeros(count, np.int32)
    for i in range(count):
        if not ask(0):
            sign, size = -1 if ask(1) else 1, 1
            while size < LARGEST and not ask(_of_size(size)):
                size += 1
            values[i] = sign * size
    return values


def _of_size(size: int) -> int:
    return min(size + 1, _QUESTIONS - 1)
