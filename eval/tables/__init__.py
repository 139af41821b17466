"""Methods side by side on one data set: `python -m eval.tables depth --data DIR --out eval/results`.

Each row of a table is a run of `eval.run videomme` with settings of its own, kept in `--runs` and taken from there when
it is finished; a table that was stopped goes on. All rows are compared with the first on the same items.
"""

from .command import TABLES, main, run

__all__ = ["TABLES", "main", "run"]
