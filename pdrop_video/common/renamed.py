"""Names that were replaced by better ones: the old ones go on working, and say what to write."""

from __future__ import annotations

import warnings


def renamed(old: str, new: str, *, stacklevel: int = 3) -> None:
    """Warn that a name is an old one.

    Parameters
    ----------
    old, new : str
    stacklevel : int
        As `warnings.warn` counts it, from here: 3 is the caller of the function that has the old name.
    """
    warnings.warn(f"{old} is an old name; write {new}.", DeprecationWarning, stacklevel=stacklevel)
