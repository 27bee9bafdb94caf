"""Copies that students edit, networks of their own, and notebooks."""

import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import HERE, SCRIPTS, load, read, tiny

import dcgan
import gan_cnn
import gan_mlp

GOOD = [1.0, 1.0, 0.5, 0.5]  # losses of a step

# ---- networks of one's own, in a copy that is typed

# PyTorch-GAN's, but for the reshape where it has a view.
NETWORKS = """
class PyGenerator(nn.Module):
    def __init__(self, z_dim=100):
        super().__init__()
        self.init_size = 28 // 4
        self.l1 = nn.Sequential(nn.Linear(z_dim, 16 * self.init_size**2))
        self.conv_blocks = nn.Sequential(
            nn.BatchNorm2d(16),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(16, 16, 3, stride=1, padding=1),
            nn.BatchNorm2d(16, 0.8),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(16, 8, 3, stride=1, padding=1),
            nn.BatchNorm2d(8, 0.8),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(8, 1, 3, stride=1, padding=1),
            nn.Tanh(),
        )

    def forward(self, z):
        out = self.l1(z)
        out = out.view(out.shape[0], 16, self.init_size, self.init_size)
        return self.conv_blocks(out)


class PyDiscriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(
            nn.Conv2d(1, 16, 3, 2, 1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Dropout2d(0.25),
            nn.Conv2d(16, 32, 3, 2, 1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Dropout2d(0.25),
            nn.BatchNorm2d(32, 0.8),
        )
        self.adv_layer = nn.Sequential(nn.Linear(32 * 7 * 7, 1), nn.Sigmoid())

    def forward(self, img):
        out = self.model(img)
        out = out.reshape(out.shape[0], -1)
        return self.adv_layer(out).squeeze(1)


"""
ADDED = f'{NETWORKS}ARCHS["pygan"] = (PyGenerator, PyDiscriminator)\n'
SETTINGS = "# ---- settings\n"  # the heading after ARCHS


def copy(script, changes, name="mine.py"):
    """A copy of a script in the current folder, with changes."""
    text = (HERE / f"{script}.py").read_text()
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new, 1)
    Path(name).write_text(text)


@pytest.mark.parametrize("script", SCRIPTS)
def test_networks_of_one_s_own_train_resume_and_draw(script, type_in):
    """An entry in ARCHS is all that they need."""
    copy(script, {SETTINGS: f"{ADDED}\n{SETTINGS}"})
    line = tiny([script, "--arch", "pygan"], "--epochs", "1", "--no-bf16")
    line[0] = "mine"
    result = type_in(*line)
    assert result.code == 0, result.err
    assert "PyGenerator(" in result.out
    assert load("runs/mine", "g.pt")["script"] == "mine"

    result = type_in("mine", "--resume", "--epochs", "2")
    assert result.code == 0, result.err
    assert "going on with runs/mine after epoch 1" in result.out
    assert "epoch 2/2" in result.out

    drawing = ["--ckpt", "runs/mine/g.pt", "--positions", "7", "--values", "3"]
    result = type_in("perturb", *drawing)
    assert result.code == 0, result.err
    _, changed = read("runs/mine", "perturb.csv")
    assert float(changed["change"]) > 0


@pytest.mark.parametrize("module", [gan_mlp, gan_cnn, dcgan])
def test_without_a_row_of_settings_a_network_trains_with_the_script_s_own(
    module, type_in, monkeypatch, replace_step
):
    script = module.SCRIPT
    networks = next(iter(module.ARCHS.values()))
    monkeypatch.setitem(module.ARCHS, "mine", networks)
    replace_step(script, lambda _: GOOD)
    cases = {"ours": ([], module.OURS), "source": (["--report"], module.PLAIN)}
    for folder, (more, settings) in cases.items():
        line = tiny([script, "--arch", "mine"], *more, "--out", folder)
        assert type_in(*line).code == 0
        typed = {"epochs": 2, "batch_size": 8}
        args = load(folder)["args"]
        assert args.items() >= (settings | typed).items(), folder


def test_archs_may_be_annotated(type_in):
    copy("gan_mlp", {"\nARCHS = {": "\nARCHS: dict = {"})
    line = tiny(["mine"])
    assert type_in(*line).code == 0
    (command,) = re.findall("next: python perturb.py (.+)", type_in(*line).out)
    result = type_in("perturb", *command.replace('"', "").split())
    assert result.code == 0, result.err
    assert "(mine.py" in result.out


def test_a_copy_s_runs_are_its_own(type_in):
    copy("gan_mlp", {})
    type_in(*tiny(["mine"]))
    type_in(*tiny(["gan_mlp"]))
    assert (
        "going on with runs/mine " in type_in("mine", "--resume", "--epochs", "3").out
    )
    refusal = type_in("gan_mlp", "--resume", "runs/mine", "--epochs", "3")
    assert refusal.code == 2
    assert "is of mine.py" in refusal.err


def test_a_network_that_was_edited_since_does_not_fit(type_in, refused):
    copy("gan_mlp", {})
    type_in(*tiny(["mine"]))
    wider = {
        "nn.Linear(z_dim, 128)": "nn.Linear(z_dim, 129)",
        "nn.Linear(128, 784)": "nn.Linear(129, 784)",
    }
    copy("gan_mlp", wider)
    # The folder is not changed, but for what Python compiles.
    result = type_in("mine", "--resume", "--epochs", "3")
    assert result.code == 2
    assert "Edited since?" in result.err
    assert load("runs/mine")["epoch"] == 2


def test_a_mistake_in_a_copy_keeps_its_traceback(type_in):
    copy("gan_mlp", {})
    type_in(*tiny(["mine"]))
    copy("gan_mlp", {"nn.Linear(z_dim, 128)": "nn.Linaer(z_dim, 128)"})
    for line in (["perturb", "--ckpt", "g.pt"], ["mine", "--resume", "--epochs", "3"]):
        with pytest.raises(AttributeError, match="Linaer"):
            type_in(*line)


# ---- a copy of the project, in processes of their own


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A copy of the project, to work in."""
    for path in HERE.glob("*.py"):
        shutil.copy(path, tmp_path)
    shutil.copytree(HERE / "data", tmp_path / "data")
    monkeypatch.chdir(tmp_path)


def python(line):
    code, said = subprocess.getstatusoutput(f"{sys.executable} {line}")
    assert code == 0, said
    return said


def test_a_copy_trains_and_its_last_line_works(project):
    shutil.copy("gan_mlp.py", "my gan.py")
    out = python("'my gan.py' --dataset sample --batch-size 500 --epochs 1")
    (command,) = re.findall("next: python (.+)", out)
    assert "generator: runs/my gan/g.pt (my gan.py" in python(command)
    assert Path("runs/my gan/perturb.png").exists()


# What has to change in dcgan.py for images of 64x64 in colour.
ADAPTED = {
    "nn.Linear(1024, 128 * 7 * 7)": "nn.Linear(1024, 128 * 16 * 16)",
    "nn.BatchNorm1d(128 * 7 * 7)": "nn.BatchNorm1d(128 * 16 * 16)",
    "x.view(-1, 128, 7, 7)": "x.view(-1, 128, 16, 16)",
    "nn.ConvTranspose2d(64, 1, 4": "nn.ConvTranspose2d(64, 3, 4",
    "nn.Conv2d(1, 32,": "nn.Conv2d(3, 32,",
    "nn.Linear(64 * 4 * 4, 1024)": "nn.Linear(64 * 13 * 13, 1024)",
    "common.load_images(args, args.batch_size, device)": (
        "torch.randint(256, (8, 3, 64, 64)), 'mine'"
    ),
}


@pytest.mark.slow
def test_other_images_need_few_changes(type_in, drawn):
    copy("dcgan", ADAPTED, "colour.py")
    line = ["--epochs", "1", "--batch-size", "8", "--lr", "2e-4", "--device", "cpu"]
    result = type_in("colour", *line)
    assert "finished: runs/colour" in result.out
    drawing = ["--ckpt", "runs/colour", "--positions", "0", "--values", "5"]
    assert type_in("perturb", *drawing).code == 0


# ---- notebooks


CELLS = [
    "%run gan_mlp.py --dry-run --dataset sample",
    "%run perturb.py --ckpt data/g.pt --positions 0 --values 5 --out figure.png",
    "import torch, common, dcgan, perturb",
    'G, saved = perturb.load_generator("data/g.pt")',
    "picture = common.grid(G(torch.randn(8, 100)).detach())",
    "assert picture.shape == (90, 699)",
]


def test_in_a_notebook(project):
    reason = "pip install nbclient ipykernel"
    nbclient = pytest.importorskip("nbclient", reason=reason)
    pytest.importorskip("ipykernel", reason=reason)
    from nbformat import v4

    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    cells = [v4.new_code_cell(line) for line in CELLS]
    notebook = v4.new_notebook(cells=cells)
    nbclient.NotebookClient(notebook, kernel_name="python3").execute()
    assert Path("runs/gan_mlp-dry-run/g.pt").exists()
    assert Path("figure.png").exists()


@pytest.mark.parametrize("script", [*SCRIPTS, "perturb"])
def test_nothing_runs_on_import(script, home):
    importlib.reload(importlib.import_module(script))
    assert list(Path().iterdir()) == []
