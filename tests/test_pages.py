"""Each command on a page can be typed, each link leads somewhere."""

import importlib
import re
import shlex
import sys
from pathlib import Path

import pytest
from conftest import HERE, SCRIPTS

import perturb

CHINESE = sorted((HERE / "docs" / "zh").glob("*.md"))
ENGLISH = [HERE / "README.md", *sorted((HERE / "docs").glob("*.md"))]
PAGES = ENGLISH + CHINESE


# ---- commands


def commands(text):
    """The script and the options of each command in a text."""
    launcher = r"(?:python|torchrun [^`\n]*?)"
    return re.findall(rf"{launcher} (\w+)\.py([^`|&#\n]*)", text)


def all_commands():
    texts = [path.read_text("utf-8") for path in PAGES]
    for script in [*SCRIPTS, "perturb"]:
        texts.append(importlib.import_module(script).__doc__)
    found = set()
    for text in texts:
        for script, options in commands(text):
            if script != "mine":  # a copy that the reader makes
                found.add((script, options.strip()))
    return sorted(found)


@pytest.mark.parametrize("script, options", all_commands())
def test_each_command_can_be_typed(script, options, monkeypatch):
    # There is no run here to resume.
    options = re.sub(r"--resume( [\w/-]*\w)?(?= --|$)", "", options)
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *shlex.split(options)])
    if script == "perturb":
        perturb.parse_args()
    else:
        importlib.import_module(script).read_options()


# ---- links


@pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: f"{page.parent.name}/{page.name}"
)
def test_links_and_pictures_are_there(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
        if "://" not in target:
            assert Path(page.parent, target).exists(), target


# ---- translations


def twin(page):
    """The English page of a Chinese one."""
    if page.name == "README.md":
        return HERE / "README.md"
    return HERE / "docs" / page.name


def kept(text):
    """What a translation keeps: commands, pictures, and the numbers in tables."""
    command = r"^ *(?:\$ )?((?:python|pip|torchrun|cp) [^#\n]*)"
    commands = [line.strip() for line in re.findall(command, text, re.MULTILINE)]
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)
    rows = re.findall(r"^\|.*", text, re.MULTILINE)
    return {
        "commands": commands,
        "pictures": [Path(name).name for name in pictures],
        "numbers": re.findall(r"\d+(?:[.,]\d+)*", "\n".join(rows)),
    }


@pytest.mark.parametrize("page", CHINESE, ids=lambda page: page.name)
def test_a_chinese_page_says_what_its_twin_says(page):
    chinese = page.read_text("utf-8")
    english = twin(page).read_text("utf-8")
    if page.name == "README.md":
        # Its last part, what to do on a first run, has no twin.
        chinese, _, _ = chinese.partition("## 第一次运行时")
    assert kept(chinese) == kept(english)
