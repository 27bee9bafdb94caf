"""perturb.py: its pictures and numbers worked out anew, and every mistake."""

import asyncio
import io
import itertools
import json
import os
import signal
import sys
import threading
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from conftest import HERE, read, small, start
from matplotlib.backend_bases import MouseEvent

import common
import gan_mlp
import perturb

SHORT = ["--positions", "0", "--values", "1"]


def generator(folder, z_dim=100, changes=()):
    """A g.pt as a run leaves it, of an untrained generator."""
    torch.manual_seed(0)
    G = gan_mlp.BasicGenerator(z_dim)
    Path(folder).mkdir(parents=True, exist_ok=True)
    content = {"script": "gan_mlp", "arch": "basic", "z_dim": z_dim, "epoch": 3, "args": {}}
    torch.save(content | {"state_dict": G.state_dict()} | dict(changes), Path(folder, "g.pt"))
    return G.eval()


def noise(samples=8, seed=23231):
    return torch.randn(samples, 100, generator=torch.Generator().manual_seed(seed))


def change(z, position, value):
    changed = z.numpy().copy()
    changed[:, position] = value
    return torch.from_numpy(changed)


def check_table(rows, G, zs, walk=False):
    """Every label and number, worked out with numpy from the z of each row. Returns the numbers."""
    with torch.no_grad():
        grey = np.stack([(G(z).numpy()[:, 0] + 1) * 127.5 for z in zs.values()])
    moved = abs(grey - (grey[[0, *range(len(grey) - 1)]] if walk else grey[0]))
    steps = [abs(np.diff(grey, axis=axis)).mean((1, 2, 3)) for axis in (2, 3)]
    pairs = itertools.combinations(range(grey.shape[1]), 2)
    pairs = [abs(grey[:, one] - grey[:, other]).mean((1, 2)) for one, other in pairs]
    numbers = {
        "brightness": grey.mean((1, 2, 3)),
        "change": moved.mean((1, 2, 3)),
        "pixels moved %": (moved > 25.5).mean((1, 2, 3)) * 100,
        "sharpness": np.mean(steps, axis=0),
    }
    numbers |= {"diversity": np.mean(pairs, axis=0)} if pairs else {}
    assert [row["row"] for row in rows] == list(zs)
    for name, wanted in numbers.items():
        given = [float(row[name]) for row in rows]
        np.testing.assert_allclose(given, wanted, rtol=1e-3, atol=1e-3, err_msg=name)
    return numbers


def test_the_example_as_typed(type_in):
    G, z = generator("runs/gan_mlp"), noise()
    positions = ["--positions", "0", "20", "40", "60", "80"]
    result = type_in("perturb", "--ckpt", "g.pt", *positions, "--values", "-1", "5", "10")
    assert result.code == 0 and result.err == ""
    assert "generator: runs/gan_mlp/g.pt" in result.out
    cells = itertools.product(positions[1:], (-1, 5, 10))
    zs = {f"z[{p}] = {value}": change(z, int(p), value) for p, value in cells}
    numbers = check_table(read("runs/gan_mlp", "perturb.csv"), G, {"unchanged": z} | zs)
    bright, moved = (numbers[name][1:].reshape(5, 3) for name in ("brightness", "change"))
    for line in (
        f"unchanged: brightness {numbers['brightness'][0]:.1f}",
        f"value 10: brightness {bright[:, 2].mean():.1f}, change {moved[:, 2].mean():.1f}",
        f"position 40: change {moved[2].mean():.1f}",
        f"the position that moves the picture most: {20 * moved.mean(1).argmax()}",
        f"brightness grows with the value at {(np.diff(bright) > 0).all(1).sum()} of 5 positions",
    ):
        assert f"\n  {line}\n" in result.out
    # the figure: 8 columns and 16 rows of pictures at three dots a pixel, and room for labels
    height, width = plt.imread("runs/gan_mlp/perturb.png").shape[:2]
    assert 0 < width - 8 * 87 < 200 and 0 < height - 16 * 87 < 100


def test_add_scale_and_a_walk_on_the_sphere(type_in):
    G, z = generator("here"), noise()
    run = ["perturb", "--ckpt", "here", "--out"]
    values = "--positions 5 99 --values 3 -1e1 -.5"  # in any notation
    out = type_in(*run, "add.png", "--add", *values.split()).out
    cells = itertools.product((5, 99), {"+ 3": 3, "- 10": -10, "- 0.5": -0.5}.items())
    zs = {f"z[{p}] {name}": change(z, p, z[:, p] + value) for p, (name, value) in cells}
    numbers = check_table(read(".", "add.csv"), G, {"unchanged": z} | zs)
    bright = numbers["brightness"][1:].reshape(2, 3)[:, [1, 2, 0]]  # as the values grow
    assert f"at {(np.diff(bright) > 0).all(1).sum()} of 2 positions" in out

    out = type_in(*run, "scale.png", "--scale", "0", "1", "3").out
    zs = {"unchanged": z} | {f"z * {factor}": z * factor for factor in (0, 1, 3)}
    numbers = check_table(read(".", "scale.csv"), G, zs)
    sharp, diverse = (numbers[name][3] / numbers[name][0] for name in ("sharpness", "diversity"))
    assert f"z * 3: sharpness {sharp:.2f}, diversity {diverse:.2f} of the unchanged" in out

    out = type_in(*run, "walk.png", "--interpolate", "7").out
    angle, zs = torch.arccos(z[0] @ z[-1] / z[0].norm() / z[-1].norm()), {}
    for t in np.arange(7) / 6:
        between = torch.sin(angle * (1 - t)) * z[:1] + torch.sin(angle * t) * z[-1:]
        zs[f"{t:.2f}"] = between / torch.sin(angle)
    steps = check_table(read(".", "walk.csv"), G, zs, walk=True)["change"][1:]
    assert f"from step to step: {steps.min():.1f} to {steps.max():.1f}" in out
    assert plt.imread("walk.png").shape[0] < 200  # one row


def test_seeds_and_nothing_is_overwritten(type_in):
    """A figure for each seed, one table, and the mean over the seeds."""
    G, names = generator("here"), {"perturb.csv", "perturb-2.csv", "g.pt"}
    for _ in range(2):
        out = type_in("perturb", "--ckpt", "here", *SHORT, "--seed", "1", "114514").out
    names |= {f"perturb{n}-seed{seed}.png" for n in ("", "-2") for seed in (1, 114514)}
    assert {path.name for path in Path("here").iterdir()} == names
    means = []
    for seed in (1, 114514):
        z = noise(seed=seed)
        rows = [row for row in read("here", "perturb-2.csv") if row["seed"] == str(seed)]
        numbers = check_table(rows, G, {"unchanged": z, "z[0] = 1": change(z, 0, 1)})
        means.append([*numbers["brightness"], *numbers["change"]])
    before, bright, _, moved = np.mean(means, axis=0)
    out = out.partition("mean over the seeds\n")[2]
    assert f"unchanged: brightness {before:.1f}\n" in out
    assert f"value 1: brightness {bright:.1f}, change {moved:.1f}\n" in out


def test_corners(type_in):
    """One entry, one sample, samples that are all alike, a short z, and a long table."""
    G = generator("one", z_dim=1)
    alike = {name: torch.zeros_like(weight) for name, weight in G.state_dict().items()}
    generator("alike", z_dim=1, changes={"state_dict": alike})
    for line in ("one --interpolate 3", "one --scale 2", "one --samples 1", "alike --scale 2"):
        result = type_in("perturb", "--ckpt", *line.split())
        assert result.code == 0 and "nan" not in result.out, result.err
    generator("short", z_dim=50)
    out = type_in("perturb", "--ckpt", "short", "--values", *map(str, range(7))).out
    assert "and 20 more rows" in out and out.count("\nz[") == 15
    assert [row["row"] for row in read("short", "perturb.csv")][35:] == ["z[40] = 6"]


def test_which_generator(type_in):
    out = type_in("perturb", *SHORT, "--out", "a.png").out
    assert f"generator: {perturb.SHIPPED} (gan_cnn.py --arch separable, epoch 20" in out
    assert "python gan_cnn.py --arch separable" in Path(HERE, "docs", "quality.md").read_text()
    for folder in ("runs/old", "runs/new", "."):
        generator(folder)
    new, old = Path("runs/new/g.pt"), Path("runs/old/g.pt")
    os.utime(old, (1, 1))
    for given, found in ("", new), ("g.pt", "g.pt"), ("runs/old", old):
        assert f"generator: {found}" in type_in("perturb", "--ckpt", given, *SHORT).out
    Path("g.pt").unlink()
    assert f"generator: {new}" in type_in("perturb", "--ckpt", "g.pt", *SHORT).out
    type_in(*small(["gan_mlp"], "--epochs", "1", "--out", "run"))
    for name in ("g.pt", "ckpt.pt"):
        assert type_in("perturb", "--ckpt", f"run/{name}", *SHORT).code == 0
    assert read("run", "perturb.csv") == read("run", "perturb-2.csv")


@pytest.fixture
def figure():
    """The sliders of the generator in data."""
    G, _ = perturb.load_generator(perturb.SHIPPED)
    figure = perturb.live(G, noise(), perturb.spread(100))
    figure.canvas.draw()
    yield figure
    plt.close(figure)


def click(axes, across=0.5):
    """On a place in axes, or beside them."""
    place = axes.transAxes.transform((across, 0.5))
    for name in ("button_press_event", "button_release_event"):
        event = MouseEvent(name, axes.figure.canvas, *place, 1)
        axes.figure.canvas.callbacks.process(name, event)


def test_live_follows_its_sliders(figure):
    """Under the backend without a screen: every widget, and the pixels that it leads to."""
    G, _ = perturb.load_generator(perturb.SHIPPED)
    images, widgets, z, changed = figure.axes[0], figure.widgets, noise(), noise()
    picture = images.images[0].get_array
    shows = lambda z: np.array_equal(picture(), common.grid(G(z).detach(), 8, zoom=1))
    assert shows(z)
    widgets[20].set_val(5)
    changed[:, 20] = 5
    assert shows(changed) and "change" in images.get_xlabel()
    click(images, 0.3)  # on the third sample
    widgets[0].set_val(-4)
    changed[2, 0] = -4
    assert shows(changed) and "sample 3" in images.get_title()
    click(images, -9)  # beside the samples
    widgets[40].set_val(3)
    changed[:, 40] = 3
    widgets["scale"].set_val(0.5)
    assert shows(changed * 0.5)
    click(widgets["back"].ax)
    assert shows(z) and widgets["scale"].val == 1
    click(widgets["new z"].ax)
    assert not shows(z)


async def first_picture(address):
    """Speaks as the page in a browser does."""
    from tornado.websocket import websocket_connect

    page = await websocket_connect(address.replace("http", "ws") + "/1/ws")
    for kind in ("supports_binary", "refresh", "draw"):
        await page.write_message(json.dumps({"type": kind, "value": True}))
    while isinstance(message := await page.read_message(), str):
        pass  # cursors and the like
    return plt.imread(io.BytesIO(message))


def test_live_in_a_browser(figure, tmp_path):
    """Where no window opens, a page on this machine has the same sliders, until Ctrl-C."""
    pytest.importorskip("tornado")
    server = start("perturb", "--live", cwd=tmp_path, env=os.environ | {"MPLBACKEND": "agg"})
    alarm = threading.Timer(100, server.kill)  # whatever is being waited for then ends
    alarm.start()
    *_, tunnel, page, _ = [server.stdout.readline() for _ in range(5)]
    address = page.split()[-1]
    shown = asyncio.run(first_picture(address))
    server.send_signal(signal.SIGINT)
    assert (server.communicate()[1], server.returncode) == ("", 130)
    alarm.cancel()
    wanted = np.asarray(figure.canvas.buffer_rgba()) / 255
    assert abs(shown - wanted).mean() < 1e-3  # the layout may be a fraction of a pixel aside
    assert len(wanted) < 600  # no need to scroll on a laptop
    port = address.rpartition(":")[2]
    assert f"ssh -L {port}:127.0.0.1:{port} " in tunnel


# fmt: off
MISTAKES = {
    "--positions 100": "from 0 to 99", "--positions -1": "from 0 to 99", "--seed 1 1": "twice",
    "--positions 3 3": "twice", "--positions 0,20,40": "put spaces", "--values -1, 5": "put spaces",
    "--interpolate 1": "from 2 ", "--interpolate 5 --samples 1": "--samples 2",
    "--interpolate 5 --scale 2": "not allowed", "--scale 2 --positions 5": "leave",
    f"--scale {' '.join(map(str, range(600)))}": "draw less", "--live": "pip install tornado",
    "--ckpt nothing.pt": "there is no file nothing.pt. Known generators: runs/here/g.pt",
    "--ckpt ../data/train-images-idx3-ubyte.gz": "no checkpoint",
    "--out figure.jpg": "does not end in .png", "--out runs/taken.png": "exists already",
    "--out runs/here/g.pt/figure.png": "runs/here/g.pt",
}
# fmt: on


def test_mistakes(refused, monkeypatch):
    generator("runs/here")
    Path("runs/taken.png").touch()
    monkeypatch.setitem(sys.modules, "tornado", None)
    for line, text in MISTAKES.items():
        refused(text, "perturb", "--ckpt", "runs/here", *line.split())


def test_files_that_lie(refused):
    Path("other.py").write_text("import pathlib; pathlib.Path('code-was-run').touch()")
    weights = generator("here").state_dict() | {"fc1.weight": torch.full((128, 100), torch.nan)}
    for name, lie, text in (
        ("script", "os", "no os.py with ARCHS"),
        ("script", "other", "no other.py with ARCHS"),
        ("script", f"../{HERE.name}/gan_mlp", "with ARCHS"),
        ("arch", "other", "no --arch other"),
        ("z_dim", "many", "no checkpoint"),
        ("z_dim", 50, "does not fit"),
        ("state_dict", None, "does not fit"),
        ("state_dict", weights, "not finite"),
        ("args", print, "no checkpoint"),
    ):
        generator("here", changes={name: lie})
        refused(text, "perturb", "--ckpt", "here/g.pt")
