"""What a student reads, types and copies: pages and their commands, edited scripts, notebooks."""

import importlib
import os
import re
import shlex
import shutil
import subprocess
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
FOUND = {
    (script, options.strip())
    for text in TEXTS
    for script, options in COMMAND.findall(text)
}
FOUND = sorted(
    (script, options) for script, options in FOUND if script != "mine"
)  # a copy


@pytest.mark.parametrize("script, options", FOUND, ids=lambda text: text or "alone")
def test_options(script, options, monkeypatch):
    words = shlex.split(re.sub(r"--resume( [\w/-]*\w)?(?= --|$)", "", options))
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *words])
    module = importlib.import_module(script)
    perturb.parse_args() if script == "perturb" else module.read_options()


@pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: f"{page.parent.name}/{page.name}"
)
def test_links_and_pictures_are_there(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
        assert "://" in target or Path(page.parent, target).exists(), target


def contents(text):
    """What a translation keeps: commands, pictures, and the numbers in tables."""
    commands = re.findall(
        r"^ *(?:\$ )?((?:python|pip|torchrun|cp) [^#\n]*)", text, re.MULTILINE
    )
    rows = re.findall(r"^\|.*", text, re.MULTILINE)
    pictures = [Path(name).name for name in re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)]
    numbers = re.findall(r"\d+(?:[.,]\d+)*", "\n".join(rows))
    return [command.strip() for command in commands], pictures, numbers


def test_a_chinese_page_says_what_its_twin_says():
    for page in CHINESE:
        is_readme = page.name == "README.md"
        twin = page.parents[2] / page.name if is_readme else page.parents[1] / page.name
        # The last part of the Chinese README has no twin.
        texts = [
            path.read_text("utf-8").partition("## 第一次运行时")[0]
            for path in (twin, page)
        ]
        english, chinese = map(contents, texts)
        if page.name == "claims.md":  # only the first table is translated
            first = re.search(r"(^\|.*\n)+", twin.read_text("utf-8"), re.MULTILINE)[0]
            english, chinese = contents(first)[2], chinese[2]
        assert chinese == english, page.name


# ---- copies and notebooks
@pytest.fixture
def project(tmp_path, monkeypatch):
    """A copy of the project, to work in."""
    for path in HERE.glob("*.py"):
        shutil.copy(path, tmp_path)
    shutil.copytree(HERE / "data", tmp_path / "data")
    monkeypatch.chdir(tmp_path)


def python(line, code=0):
    found, said = subprocess.getstatusoutput(f"{sys.executable} {line}")
    assert found == code, said
    return said


def test_a_copy_trains_resumes_and_its_last_line_works(project):
    shutil.copy("gan_mlp.py", "my gan.py")
    python("'my gan.py' --dataset sample --batch-size 500 --epochs 1")
    out = python("'my gan.py' --resume --epochs 2")
    assert "going on with runs/my gan after epoch 1" in out
    (command,) = re.findall("next: python (.+)", out)
    assert "generator: runs/my gan/g.pt (my gan.py" in python(command)
    assert Path("runs/my gan/perturb.png").exists()
    text = (
        Path("my gan.py")
        .read_text()
        .replace("nn.Linear(z_dim, 128)", "nn.Linaer(z_dim, 128)")
    )
    Path("my gan.py").write_text(text)
    said = python(command, code=1)
    assert "Traceback" in said and "'Linaer'" in said


# fmt: off
ADAPTED = {  # dcgan.py for images of 64x64 in colour: what has to change
    "128 * 7 * 7": "128 * 16 * 16", "128, 7, 7": "128, 16, 16",
    "ConvTranspose2d(64, 1,": "ConvTranspose2d(64, 3,", "Conv2d(1, 32,": "Conv2d(3, 32,",
    "nn.Linear(64 * 4 * 4, 1024)": "nn.Linear(64 * 13 * 13, 1024)",
    "common.load_images(args, args.batch_size, device)": "torch.randint(256, (8, 3, 64, 64)), 'm'",
}
# fmt: on


@pytest.mark.slow
def test_other_images_need_few_changes(project):
    text = Path("dcgan.py").read_text()
    for old, new in ADAPTED.items():
        assert old in text
        text = text.replace(old, new)
    Path("colour.py").write_text(text)
    assert "finished: runs/colour" in python(
        "colour.py --epochs 1 --batch-size 8 --lr 2e-4"
    )
    python("perturb.py --ckpt runs/colour --positions 0 --values 5")


CELLS = """
%run gan_mlp.py --dry-run --dataset sample
%run perturb.py --ckpt data/g.pt --positions 0 --values 5 --out figure.png
import torch, common, dcgan, perturb
G, saved = perturb.load_generator("data/g.pt")
assert common.grid(G(torch.randn(8, 100)).detach()).shape == (90, 699)
"""


def test_in_a_notebook(project):
    nbclient = pytest.importorskip("nbclient", reason="pip install nbclient ipykernel")
    pytest.importorskip("ipykernel", reason="pip install nbclient ipykernel")
    from nbformat import v4

    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    cells = [v4.new_code_cell(line) for line in CELLS.strip().splitlines()]
    nbclient.NotebookClient(
        v4.new_notebook(cells=cells), kernel_name="python3"
    ).execute()
    assert Path("runs/gan_mlp-dry-run/g.pt").exists() and Path("figure.png").exists()
