"""Commands on the pages have options that there are, and a page says what its Chinese twin says."""

import importlib
import re
import shlex
import sys
from pathlib import Path

import pytest
from conftest import ARCHS, HERE

import perturb

CHINESE = sorted((HERE / "docs" / "zh").glob("*.md"))
PAGES = [HERE / "README.md", *sorted((HERE / "docs").glob("*.md")), *CHINESE]
TEXTS = [path.read_text("utf-8") for path in PAGES]
TEXTS += [importlib.import_module(script).__doc__ for script in [*ARCHS, "perturb"]]
COMMAND = re.compile(r"(?:python|torchrun [^`\n]*?) (\w+)\.py([^`|&#\n]*)")
FOUND = {(script, options.strip()) for text in TEXTS for script, options in COMMAND.findall(text)}
FOUND = sorted((script, options) for script, options in FOUND if script != "mine")  # test_copies.py


@pytest.mark.parametrize("script, options", FOUND, ids=lambda text: text or "alone")
def test_options(script, options, monkeypatch):
    words = shlex.split(re.sub(r"--resume( [\w/-]*\w)?(?= --|$)", "", options))
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *words])
    module = importlib.import_module(script)
    perturb.parse_args() if script == "perturb" else module.read_options()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_links_and_pictures_are_there(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
        assert "://" in target or Path(page.parent, target).exists(), target


def contents(text):
    """What a translation keeps: commands, pictures, and the numbers in tables."""
    commands = re.findall(r"^ *(?:\$ )?((?:python|pip|torchrun|cp) [^#\n]*)", text, re.MULTILINE)
    rows = re.findall(r"^\|.*", text, re.MULTILINE)
    return {
        "commands": [command.strip() for command in commands],
        "pictures": [Path(name).name for name in re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)],
        "numbers": re.findall(r"\d+(?:[.,]\d+)*", "\n".join(rows)),
    }


def test_a_chinese_page_says_what_its_twin_says():
    for page in CHINESE:
        is_readme = page.name == "README.md"
        twin = page.parents[2] / page.name if is_readme else page.parents[1] / page.name
        # The last part of the Chinese README has no twin.
        texts = [path.read_text("utf-8").partition("## 第一次运行时")[0] for path in (twin, page)]
        english, chinese = map(contents, texts)
        if page.name == "claims.md":  # only the first table is translated
            first = re.search(r"(^\|.*\n)+", twin.read_text("utf-8"), re.MULTILINE)[0]
            english, chinese = contents(first)["numbers"], chinese["numbers"]
        assert chinese == english, page.name
