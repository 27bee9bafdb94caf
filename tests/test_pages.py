"""Every `python SCRIPT.py` command on every page works: the trainings with --dry-run, perturb.py as
it stands."""

import importlib
import re
import shlex
from pathlib import Path

import pytest
import torch
from conftest import ARCHS, HERE

PAGES = [HERE / "README.md", *sorted((HERE / "docs").glob("*.md"))]
TEXTS = [path.read_text("utf-8") for path in PAGES]
TEXTS += [importlib.import_module(script).__doc__ for script in [*ARCHS, "perturb"]]
COMMAND = re.compile(r"python (\w+)\.py([^`|&#\n]*)")
FOUND = sorted(
    {(script, options.strip()) for text in TEXTS for script, options in COMMAND.findall(text)}
)


def test_the_pages_have_commands():
    assert len(FOUND) > 30


@pytest.mark.parametrize("script, options", FOUND, ids=lambda text: text or "alone")
def test_command(script, options, type_in, tmp_path):
    words = shlex.split(options)
    if script == "mine" or "--live" in words:
        pytest.skip("tried in test_copies.py or test_perturb.py")
    for option, count in ("--out", 2), ("--resume", 1), ("--device", 2), ("--ckpt", 2):
        while option in words:
            at = words.index(option)
            del words[at : at + count]
    if script == "perturb":
        words += ["--ckpt", str(HERE / "data" / "g.pt"), "--out", str(tmp_path / "figure.png")]
    else:
        words += ["--dataset", "sample", "--dry-run", "--batch-size", "8"]
    assert type_in(script, *words).code == 0
    if script in ARCHS:
        assert torch.load(f"runs/{script}-dry-run/g.pt")["script"] == script


def test_links_and_pictures_are_there():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
            assert "://" in target or Path(page.parent, target).exists(), (page.name, target)
