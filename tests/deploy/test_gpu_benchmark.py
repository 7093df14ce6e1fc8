"""The benchmark of a graphics card is a script for any machine: it runs with the few packages that it names."""

import subprocess
import sys
from pathlib import Path

import pytest

WITHOUT = """
import runpy, sys

sys.modules |= dict.fromkeys({lacking})  # to import one of them is an error
sys.argv = ["benchmarks.gpu", *{words}]
runpy.run_module("benchmarks.gpu", run_name="__main__")
"""
LACKING = ("ray", "duckdb", "faiss", "fastapi", "uvicorn", "boto3", "timm", "typer", "rich", "jinja2", "skimage")


@pytest.mark.long
def test_it_passes_on_a_cpu_with_the_packages_that_it_names() -> None:
    words = ["--device", "cpu", "--seconds", "0.1", "--models", "EfficientNet-Lite0"]
    code = WITHOUT.format(lacking=LACKING, words=words)
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "all checks hold" in ran.stdout
    assert "what does not fit runs in parts: 2 of 8 at a time" in ran.stdout


def test_without_a_card_it_says_what_would_do() -> None:
    code = WITHOUT.format(lacking=(), words=["--device", "cuda"])
    hidden = "import os; os.environ['CUDA_VISIBLE_DEVICES'] = ''\n"
    ran = subprocess.run(
        [sys.executable, "-c", hidden + code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 2
    assert "torch sees no CUDA device; --device cpu tries the script itself" in ran.stderr
