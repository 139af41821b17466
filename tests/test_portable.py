"""The same tokens stay on every kind of processor: other kernels and numbers of threads, each in a process of its own.

In float64, where nothing but exact ties lies within the arithmetic's noise; in narrower types near ties may go either
way.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.portable

SETTINGS = (
    {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "OMP_NUM_THREADS": "1"},
    {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "OMP_NUM_THREADS": "2"},
    {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_NUM_THREADS": "1"},
    {"ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "OMP_NUM_THREADS": "1"},
    {"OMP_NUM_THREADS": "2"},
)


def kept(**settings: str) -> dict[str, Any]:
    here = Path(__file__).parent
    path = os.pathsep.join([str(here.parent), str(here)])
    env = {**os.environ, "PYTHONPATH": path, **settings}
    run = subprocess.run([sys.executable, str(here / "kept.py")], env=env, capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


@pytest.fixture(scope="module")
def here() -> dict[str, Any]:
    """With the best kernels that this processor has, on one thread."""
    return kept(OMP_NUM_THREADS="1")


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: ",".join(f"{k}={v}" for k, v in settings.items()))
def test_the_same_tokens_stay(settings: dict[str, str], here: dict[str, Any]) -> None:
    other = kept(**settings)
    assert len(here) == 70
    assert [name for name in here if here[name] != other[name]] == []
