"""What a student does with the scripts: copies them, adapts them, runs them in a notebook."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import HERE

import common


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A copy of the project, to work in."""
    for path in HERE.glob("*.py"):
        shutil.copy(path, tmp_path)
    shutil.copytree(HERE / "data", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shell(command):
    done = subprocess.run(
        command, shell=True, capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_copy_trains_resumes_and_its_last_line_works(project):
    shutil.copy("gan_mlp.py", "my gan.py")
    train = f"{sys.executable} 'my gan.py' --dataset sample --batch-size 500 --epochs"
    assert "finished: runs/my gan" in shell(f"{train} 1")
    out = shell(f"{sys.executable} 'my gan.py' --resume --epochs 2")
    assert "going on with runs/my gan after epoch 1" in out
    (command,) = re.findall("next: python (.+)", out)
    assert "generator: runs/my gan/g.pt (my gan.py" in shell(f"{sys.executable} {command}")
    assert Path("runs/my gan/perturb.png").exists()


def test_a_fault_in_a_copy_keeps_its_own_words(project):
    text = Path("gan_mlp.py").read_text()
    Path("mine.py").write_text(text.replace("nn.Linear(z_dim, 128)", "nn.Linaer(z_dim, 128)"))
    saved = torch.load("data/g.pt", weights_only=True)
    torch.save(saved | {"script": "mine", "arch": "basic"}, "g.pt")
    command = f"{sys.executable} perturb.py --ckpt g.pt"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "Traceback" in done.stderr and "'Linaer'" in done.stderr


ADAPTED = {  # dcgan.py for images of 64x64 in colour: what has to change
    "128 * 7 * 7": "128 * 16 * 16",
    "nn.ConvTranspose2d(64, 1, 4, 2, 1)": "nn.ConvTranspose2d(64, 3, 4, 2, 1)",
    "x.view(-1, 128, 7, 7)": "x.view(-1, 128, 16, 16)",
    "nn.Conv2d(1, 32, 5, 1, 0)": "nn.Conv2d(3, 32, 5, 1, 0)",
    "nn.Linear(64 * 4 * 4, 1024)": "nn.Linear(64 * 13 * 13, 1024)",
    "common.load_images(args, args.batch_size)": "torch.randint(256, (8, 3, 64, 64)).byte(), 'mine'",
}


def test_other_images_need_few_changes(project):
    text = Path("dcgan.py").read_text()
    for old, new in ADAPTED.items():
        assert old in text
        text = text.replace(old, new)
    Path("colour.py").write_text(text)
    out = shell(f"{sys.executable} colour.py --epochs 1 --batch-size 8")
    assert "finished: runs/colour" in out
    shell(f"{sys.executable} perturb.py --ckpt runs/colour --positions 0 --values 5")


@pytest.mark.parametrize("channels", [1, 3])
def test_grid_takes_any_size(channels):
    images = torch.linspace(-1, 1, 5).view(5, 1, 1, 1).expand(5, channels, 20, 30)
    picture = common.grid(images, columns=3, zoom=2)
    assert picture.shape[:2] == ((2 * 21 + 1) * 2, (3 * 31 + 1) * 2)
    assert picture.ndim == 2 if channels == 1 else picture.shape[2] == 3
    values = {0, 64, 128, 191, 255, 96}  # five greys and the frame
    assert set(np.unique(picture)) == values


CELLS = [
    "%run gan_mlp.py --dry-run --dataset sample",
    "%run perturb.py --ckpt data/g.pt --positions 0 --values 5 --out figure.png",
    "import torch, common, dcgan, perturb",
    "G, saved = perturb.load_generator('data/g.pt')",
    "with torch.no_grad():\n    print(common.grid(G(torch.randn(8, 100))).shape)",
]


def test_in_a_notebook(project):
    nbclient = pytest.importorskip("nbclient", reason="pip install nbclient ipykernel")
    pytest.importorskip("ipykernel", reason="pip install nbclient ipykernel")
    from nbformat.v4 import new_code_cell, new_notebook

    notebook = new_notebook(cells=[new_code_cell(cell) for cell in CELLS])
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    nbclient.NotebookClient(notebook, timeout=200, kernel_name="python3").execute()
    outputs = ["".join(o.get("text", "") for o in cell.outputs) for cell in notebook.cells]
    assert "finished: runs/gan_mlp-dry-run" in outputs[0]
    assert "generator: data/g.pt" in outputs[1] and Path("figure.png").exists()
    assert "(90, 699)" in outputs[4]
