"""Images that are read when they are asked for: what of a NumPy array a cohort needs."""

from collections.abc import Callable, Iterator
from typing import overload

import numpy as np


class Stack:
    """Arrays of one shape behind a function that reads one of them.

    It stands in a `Cohort` where the images of a hospital would not fit in memory. An index gives
    an array; a slice, a mask or several indices give another stack, and read nothing.

    Attributes:
      shape: `[N, ...]`.
      dtype: of the arrays.
    """

    def __init__(
        self,
        read: Callable[[int], np.ndarray],
        rows: np.ndarray,
        *,
        shape: tuple[int, ...],
        dtype: type,
    ):
        """Makes a stack.

        Args:
          read: `row -> array` of `shape` and `dtype`.
          rows: `[N]` int, the row behind each place.
          shape: of one array.
          dtype: of the arrays.
        """
        self._read, self._rows = read, rows
        self.shape, self.dtype = (len(rows), *shape), np.dtype(dtype)

    @property
    def nbytes(self) -> int:
        """Size of all arrays, read or not."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, at: int | np.integer) -> np.ndarray: ...

    @overload
    def __getitem__(self, at: slice | np.ndarray) -> "Stack": ...

    def __getitem__(self, at: int | np.integer | slice | np.ndarray) -> "np.ndarray | Stack":
        if isinstance(at, int | np.integer):
            return self._read(int(self._rows[at]))
        return Stack(self._read, self._rows[at], shape=self.shape[1:], dtype=self.dtype.type)

    def __iter__(self) -> Iterator[np.ndarray]:
        return map(self._read, self._rows.tolist())

    def __array__(
        self, dtype: np.typing.DTypeLike | None = None, copy: bool | None = None
    ) -> np.ndarray:
        if copy is False:
            raise ValueError("A stack cannot be an array without reading it into a new one.")
        out = np.empty(self.shape, self.dtype if dtype is None else dtype)
        for place, array in enumerate(self):
            out[place] = array
        return out
