"""perturb.py: its pictures and numbers worked out anew, and every mistake."""

import csv
import importlib
import itertools
import os
import pickle
from argparse import Namespace
from pathlib import Path

import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from conftest import ARCHS, HERE, tree
from matplotlib.backend_bases import MouseEvent

import common
import perturb

EXAMPLE = ["--positions", "0", "20", "40", "60", "80", "--values", "-1", "5", "10"]


def generator(folder, script="gan_mlp", arch="basic", z_dim=100, changes=()):
    """A g.pt as a run leaves it, of an untrained generator."""
    torch.manual_seed(0)
    G = importlib.import_module(script).ARCHS[arch][0](z_dim)
    Path(folder).mkdir(parents=True, exist_ok=True)
    content = {"script": script, "arch": arch, "z_dim": z_dim, "epoch": 3, "args": {}}
    content |= {"state_dict": G.state_dict()} | dict(changes)
    torch.save(content, Path(folder, "g.pt"))
    return G.eval()


def table(path):
    with open(path) as file:
        return list(csv.DictReader(file))


def test_the_example_as_typed(type_in):
    """Every number of the table, worked out with numpy from the generator and report C's z."""
    G = generator("runs/gan_mlp")
    result = type_in("perturb", "--ckpt", "g.pt", *EXAMPLE)
    assert result.code == 0 and result.err == ""
    assert "generator: runs/gan_mlp/g.pt" in result.out
    rows = table("runs/gan_mlp/perturb.csv")

    torch.manual_seed(23231)
    z = torch.randn(8, 100)
    wanted = [("unchanged", z)]
    for position, value in itertools.product((0, 20, 40, 60, 80), (-1, 5, 10)):
        changed = z.numpy().copy()
        changed[:, position] = value
        wanted.append((f"z[{position}] = {value}", torch.from_numpy(changed)))
    assert [row["row"] for row in rows] == [name for name, _ in wanted]
    with torch.no_grad():
        grey = [(G(z).numpy().reshape(8, 784) + 1) * 127.5 for _, z in wanted]
    for row, picture in zip(rows, grey):
        change = abs(picture - grey[0])
        pairs = [abs(a - b).mean() for a, b in itertools.combinations(picture, 2)]
        numbers = [picture.mean(), change.mean(), (change > 25.5).mean() * 100, np.mean(pairs)]
        numbers += [
            np.mean([abs(np.diff(picture.reshape(8, 28, 28), axis=n)).mean() for n in (1, 2)])
        ]
        names = ("brightness", "change", "pixels moved %", "diversity", "sharpness")
        given = [row[name] for name in names]
        np.testing.assert_allclose(list(map(float, given)), numbers, rtol=1e-3, atol=1e-3)

    # the first lines: a mean for each value and position, and the answers
    change = np.reshape([float(row["change"]) for row in rows[1:]], (5, 3))
    bright = np.reshape([float(row["brightness"]) for row in rows[1:]], (5, 3))
    most = (0, 20, 40, 60, 80)[change.mean(1).argmax()]
    assert f"the position that moves the picture most: {most}" in result.out
    grows = (np.diff(bright) > 0).all(1).sum()
    assert f"brightness grows with the value at {grows} of 5 positions" in result.out
    assert f"value 10: brightness {bright[:, 2].mean():.1f}" in result.out

    # the figure: 8 columns and 16 rows of pictures at three dots a pixel, and room for labels
    height, width = matplotlib.image.imread("runs/gan_mlp/perturb.png").shape[:2]
    assert 8 * 87 < width < 8 * 87 + 200 and 16 * 87 < height < 16 * 87 + 100


def test_a_long_table_does_not_fill_the_screen(type_in):
    generator("here")
    values = [str(value) for value in range(1, 17)]
    out = type_in("perturb", "--ckpt", "here", "--values", *values).out
    assert "and 65 more rows" in out and out.count("\nz[") == 15
    assert len(table("here/perturb.csv")) == 81


def test_only_the_named_entry_changes():
    z = torch.randn(8, 100)
    before = z.clone()
    args = Namespace(interpolate=None, scale=None, add=False, positions=[3, 99], values=[-1.0, 7.0])
    rows = list(perturb.make_rows(args, z))
    assert torch.equal(z, before) and torch.equal(rows[0][1], before)
    for (_, changed), (position, value) in zip(rows[1:], itertools.product([3, 99], [-1.0, 7.0])):
        assert (changed[:, position] == value).all()
        others = torch.arange(100) != position
        assert torch.equal(changed[:, others], before[:, others])
    args.add = True
    for (name, changed), row in zip(list(perturb.make_rows(args, z))[1:], rows[1:]):
        position = int(name[2 : name.index("]")])
        torch.testing.assert_close(changed[:, position], before[:, position] + row[1][0, position])
    assert [name for name, _ in perturb.make_rows(args, z)][1:3] == ["z[3] - 1", "z[3] + 7"]


@pytest.mark.parametrize("script, arch", [(s, arch) for s in ARCHS for arch in ARCHS[s]])
def test_every_architecture(script, arch, type_in):
    generator("here", script, arch, z_dim=30)
    line = ["--positions", "29", "--values", "0.3", "10", "--samples", "3"]
    assert type_in("perturb", "--ckpt", "here/g.pt", *line).code == 0
    rows = table("here/perturb.csv")
    assert [row["row"] for row in rows] == ["unchanged", "z[29] = 0.3", "z[29] = 10"]
    assert float(rows[0]["change"]) == 0 < float(rows[2]["change"])


def test_scale_measures_diversity(type_in):
    generator("here")
    result = type_in("perturb", "--ckpt", "here", "--scale", "0", "1", "3")
    rows = table("here/perturb.csv")
    assert [row["row"] for row in rows] == ["unchanged", "z * 0", "z * 1", "z * 3"]
    assert float(rows[1]["diversity"]) == 0  # the same z for all
    assert float(rows[2]["change"]) == 0
    assert "z * 1: sharpness 1.00, diversity 1.00 of the unchanged row's" in result.out


def test_interpolation_walks_on_the_sphere(type_in):
    z = torch.randn(5, 100)
    args = Namespace(interpolate=7)
    walk = torch.cat([z for _, z in perturb.make_rows(args, z)])
    torch.testing.assert_close(walk[[0, -1]], z[[0, -1]])
    lengths = walk.norm(dim=1)
    assert lengths.min() > 0.9 * z[[0, -1]].norm(dim=1).min()  # a straight line would pass nearer 0
    generator("here")
    result = type_in("perturb", "--ckpt", "here", "--interpolate", "7")
    steps = [float(row["change"]) for row in table("here/perturb.csv")]
    assert len(steps) == 7 and steps[0] == 0
    assert f"from step to step: {min(steps[1:]):.1f} to {max(steps):.1f}" in result.out
    height, width = matplotlib.image.imread("here/perturb.png").shape[:2]
    assert width > 7 * 87 and height < 200  # one row


def test_corners(type_in):
    """A z of one entry, samples that are all alike, and positions for a short z."""
    generator("one", z_dim=1)
    for line in (["--interpolate", "3"], ["--scale", "2"], []):
        result = type_in("perturb", "--ckpt", "one", *line)
        assert result.code == 0 and "nan" not in result.out, result.err
    G = generator("alike")
    weights = {name: torch.zeros_like(weight) for name, weight in G.state_dict().items()}
    generator("alike", changes={"state_dict": weights})
    assert type_in("perturb", "--ckpt", "alike", "--scale", "2").code == 0
    generator("short", z_dim=50)
    assert type_in("perturb", "--ckpt", "short").code == 0
    assert "z[40] = 10" in [row["row"] for row in table("short/perturb.csv")]


def test_a_figure_for_each_seed_and_nothing_is_overwritten(type_in):
    generator("here")
    short = ["--ckpt", "here", "--positions", "0", "--values", "1"]
    for _ in range(2):
        result = type_in("perturb", *short, "--seed", "1", "114514")
        assert result.code == 0
    assert type_in("perturb", *short).code == 0
    names = {path.name for path in Path("here").iterdir()} - {"g.pt"}
    several = {"{}.csv", "{}-seed1.png", "{}-seed114514.png"}
    assert names == {name.format(stem) for stem in ("perturb", "perturb-2") for name in several} | {
        "perturb-3.csv",
        "perturb-3.png",
    }
    seeds = [row["seed"] for row in table("here/perturb.csv")]
    assert seeds == ["1", "1", "114514", "114514"]
    change = np.mean([float(row["change"]) for row in table("here/perturb.csv")[1::2]])
    assert "mean over the seeds\n  unchanged" in result.out
    assert f"change {change:.1f}\n" in result.out.partition("mean over the seeds")[2]
    assert type_in("perturb", *short, "--out", "there/mine.png").code == 0
    assert sorted(path.name for path in Path("there").iterdir()) == ["mine.csv", "mine.png"]


def test_which_generator(type_in):
    short = ["--positions", "0", "--values", "1"]
    assert f"generator: {common.DATA / 'g.pt'}" in type_in("perturb", *short, "--out", "a.png").out
    generator("runs/old")
    generator("runs/new")
    os.utime("runs/old/g.pt", (1, 1))
    assert "generator: runs/new/g.pt" in type_in("perturb", *short).out
    assert "generator: runs/new/g.pt" in type_in("perturb", "--ckpt", "g.pt", *short).out
    assert "generator: runs/old/g.pt" in type_in("perturb", "--ckpt", "runs/old", *short).out
    generator(".")
    assert "generator: g.pt" in type_in("perturb", "--ckpt", "g.pt", *short).out
    assert "generator: runs/new/g.pt" in type_in("perturb", *short).out


def test_negative_numbers_in_any_notation(type_in):
    generator("here")
    assert type_in("perturb", "--ckpt", "here", "--values", "-1e1", "-.5", "3").code == 0
    names = [row["row"] for row in table("here/perturb.csv")][1:4]
    assert names == ["z[0] = -10", "z[0] = -0.5", "z[0] = 3"]


def test_a_generator_of_a_copied_script(type_in):
    """A script is found beside perturb.py or in the current folder, if it has ARCHS."""
    Path("mine.py").write_text((HERE / "gan_mlp.py").read_text())
    generator("here", changes={"script": "mine"})
    assert type_in("perturb", "--ckpt", "here", "--out", "mine.png").code == 0
    Path("other.py").write_text("import pathlib; pathlib.Path('code-was-run').touch()")
    generator("there", changes={"script": "other"})
    check(type_in("perturb", "--ckpt", "there/g.pt"), "no other.py with ARCHS")
    assert not Path("code-was-run").exists()


def test_live_follows_its_sliders(monkeypatch):
    """Under the backend without a screen: every widget, and the pixels that it leads to."""
    G, _ = perturb.load_generator(str(perturb.SHIPPED))
    z = torch.randn(4, 100, generator=torch.Generator().manual_seed(1))
    figure, widgets = perturb.live(G, z, [0, 20])
    [images] = [axes for axes in figure.axes if axes.images]
    picture = images.images[0]

    def shown():
        return np.asarray(picture.get_array())

    def drawn(z):
        with torch.inference_mode():
            return common.grid(G(z), 4, zoom=1)

    def press(button):
        widgets[button]._observers.process("clicked", None)

    def click(column):
        x, y = images.transData.transform((column * 29 + 14, 14))
        figure.canvas.callbacks.process(
            "button_press_event", MouseEvent("button_press_event", figure.canvas, x, y, 1)
        )

    assert np.array_equal(shown(), drawn(z))
    changed = z.clone()
    changed[:, 20] = 5
    widgets[20].set_val(5)
    assert np.array_equal(shown(), drawn(changed)) and "change" in images.get_xlabel()
    click(2)
    widgets[0].set_val(-4)
    changed[2, 0] = -4
    assert np.array_equal(shown(), drawn(changed))
    widgets["scale"].set_val(0.5)
    assert np.array_equal(shown(), drawn(changed * 0.5))
    press("back")
    assert np.array_equal(shown(), drawn(z)) and widgets["scale"].val == 1
    press("new z")
    assert not np.array_equal(shown(), drawn(z))
    plt.close(figure)


def test_live_without_a_display_says_so(type_in):
    generator("here")
    check(type_in("perturb", "--ckpt", "here", "--live"), "no display")


def test_a_whole_checkpoint_will_do(type_in):
    run = ["--epochs", "1", "--batch-size", "16", "--data-dir", "../data"]
    assert type_in("gan_mlp", *run).code == 0
    short = ["--positions", "0", "--values", "1"]
    assert type_in("perturb", "--ckpt", "runs/gan_mlp/g.pt", *short).code == 0
    assert type_in("perturb", "--ckpt", "ckpt.pt", *short).code == 0
    first, second = (Path("runs/gan_mlp", f"perturb{n}.csv").read_bytes() for n in ("", "-2"))
    assert first == second


def test_the_shipped_generator_is_small_and_trained_as_the_readme_says():
    assert perturb.SHIPPED.stat().st_size < 3e6
    _, saved = perturb.load_generator(perturb.SHIPPED)
    assert saved["args"]["dataset"] == "fashion-mnist"
    command = f"python {saved['script']}.py --arch {saved['arch']}"
    assert command in (HERE / "docs" / "quality.md").read_text()


MISTAKES = {
    "--positions 100": "from 0 to 99",
    "--positions -1": "from 0 to 99",
    "--positions 3 3": "twice",
    "--positions": "at least one",
    "--positions 0,20,40": "put spaces",
    "--values nan": "a number from",
    "--values inf": "a number from",
    "--values": "at least one",
    "--samples 0": "from 1 ",
    "--seed 1 1": "twice",
    "--interpolate 1": "from 2 ",
    "--interpolate 5 --samples 1": "--samples 2",
    "--interpolate 5 --scale 2": "not allowed",
    "--scale 2 --positions 5": "leave",
    "--samples 64 --values " + " ".join(map(str, range(40))): "draw less",
    "--scale " + " ".join(map(str, range(600))): "draw less",
    "--ckpt nothing.pt": "there is no file nothing.pt. Known generators: runs/here/g.pt",
    "--ckpt ../data": "there is no file",
    "--ckpt ../data/train-images-idx3-ubyte.gz": "no checkpoint",
    "--out figure.jpg": "does not end in .png",
    "--out runs/here/taken.png": "exists already",
    "--out /proc/nothing/figure.png": "/proc",
    "--out runs/here/g.pt/figure.png": "runs/here/g.pt",
}


@pytest.mark.parametrize("line", MISTAKES)
def test_mistakes(line, type_in):
    generator("runs/here")
    Path("runs/here/taken.png").touch()
    check(type_in("perturb", "--ckpt", "runs/here", *line.split()), MISTAKES[line])


def check(result, text):
    assert result.code == 2, result.out
    assert "Traceback" not in result.err and text in result.err
    assert not [path for path in tree(".") if path.name.startswith(("perturb", "figure"))]


class Evil:
    def __reduce__(self):
        return Path("code-was-run").touch, ()


@pytest.mark.parametrize(
    "changes, text",
    [
        ({"script": "os"}, "no os.py with ARCHS"),
        ({"script": f"../{HERE.name}/gan_mlp"}, "with ARCHS"),
        ({"script": ["gan_mlp"]}, "no checkpoint"),
        ({"arch": "other"}, "no --arch other"),
        ({"arch": "deep"}, "does not fit"),
        ({"z_dim": 50}, "does not fit"),
        ({"z_dim": "many"}, "no checkpoint"),
        ({"state_dict": None}, "does not fit"),
        ({"state_dict": {}}, "does not fit"),
        ({"args": Evil()}, "no checkpoint"),
    ],
)
def test_files_that_lie(changes, text, type_in):
    generator("here", changes=changes)
    check(type_in("perturb", "--ckpt", "here/g.pt"), text)
    assert not Path("code-was-run").exists()


def test_damaged_files(type_in):
    generator("here")
    path = Path("here/g.pt")
    whole = path.read_bytes()
    nan = torch.load(path, weights_only=True)
    nan["state_dict"]["fc1.bias"][0] = float("nan")
    torch.save(nan, "here/g.pt")
    check(type_in("perturb", "--ckpt", "here/g.pt"), "not finite")
    for body in (whole[:-1000], whole[:50], b"", pickle.dumps(Evil())):
        path.write_bytes(body)
        check(type_in("perturb", "--ckpt", "here/g.pt"), "no checkpoint")
    assert not Path("code-was-run").exists()
