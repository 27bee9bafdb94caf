"""What a student does with the scripts: copies, other images in a copy, notebooks."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import HERE


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A copy of the project, to work in."""
    for path in HERE.glob("*.py"):
        shutil.copy(path, tmp_path)
    shutil.copytree(HERE / "data", tmp_path / "data")
    monkeypatch.chdir(tmp_path)


def python(line, code=0):
    command = f"{sys.executable} {line}"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def test_a_copy_trains_resumes_and_its_last_line_works(project):
    shutil.copy("gan_mlp.py", "my gan.py")
    python("'my gan.py' --dataset sample --batch-size 500 --epochs 1")
    out = python("'my gan.py' --resume --epochs 2")
    assert "going on with runs/my gan after epoch 1" in out
    (command,) = re.findall("next: python (.+)", out)
    # a fault in the copy keeps its own words
    text = Path("my gan.py").read_text()
    Path("my gan.py").write_text(text.replace("nn.Linear(z_dim, 128)", "nn.Linaer(z_dim, 128)"))
    said = python(command, code=1)
    assert "Traceback" in said and "'Linaer'" in said
    Path("my gan.py").write_text(text)
    assert "generator: runs/my gan/g.pt (my gan.py" in python(command)
    assert Path("runs/my gan/perturb.png").exists()


ADAPTED = {  # dcgan.py for images of 64x64 in colour: what has to change
    "128 * 7 * 7": "128 * 16 * 16",
    "nn.ConvTranspose2d(64, 1, 4, 2, 1)": "nn.ConvTranspose2d(64, 3, 4, 2, 1)",
    "x.view(-1, 128, 7, 7)": "x.view(-1, 128, 16, 16)",
    "nn.Conv2d(1, 32, 5, 1, 0)": "nn.Conv2d(3, 32, 5, 1, 0)",
    "nn.Linear(64 * 4 * 4, 1024)": "nn.Linear(64 * 13 * 13, 1024)",
    "common.load_images(args, args.batch_size, device)": "torch.randint(256, (8, 3, 64, 64)), 'm'",
}


@pytest.mark.slow
def test_other_images_need_few_changes(project):
    text = Path("dcgan.py").read_text()
    for old, new in ADAPTED.items():
        assert old in text
        text = text.replace(old, new)
    Path("colour.py").write_text(text)
    assert "finished: runs/colour" in python("colour.py --epochs 1 --batch-size 8 --lr 2e-4")
    python("perturb.py --ckpt runs/colour --positions 0 --values 5")


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
