"""Drivers: how jobs are carried out, in this process or in many, on this machine or on others.

All share `eval.drivers.jobs`: they are given jobs and hand out records; only the one who started them writes them down.
None knows what a worker does with a job.
"""

from .local import local
from .shards import Place, place_of, torchrun_place
from .threads import threads

__all__ = ["Place", "local", "place_of", "threads", "torchrun_place"]
