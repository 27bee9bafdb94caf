"""perturb.py: its pictures and numbers worked out anew, and every mistake."""

import asyncio
import base64
import csv
import importlib
import io
import itertools
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from conftest import ARCHS, HERE, start, tree
from matplotlib.backend_bases import MouseEvent

import common
import perturb

SHORT = ["--positions", "0", "--values", "1"]
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def generator(folder, script="gan_mlp", arch="basic", z_dim=100, changes=()):
    """A g.pt as a run leaves it, of an untrained generator."""
    torch.manual_seed(0)
    G = importlib.import_module(script).ARCHS[arch][0](z_dim)
    Path(folder).mkdir(parents=True, exist_ok=True)
    content = {"script": script, "arch": arch, "z_dim": z_dim, "epoch": 3, "args": {}}
    content |= {"state_dict": G.state_dict()} | dict(changes)
    torch.save(content, Path(folder, "g.pt"))
    return G.eval()


def noise(samples=8, seed=23231):
    return torch.randn(samples, 100, generator=torch.Generator().manual_seed(seed))


def change(z, position, value):
    changed = z.numpy().copy()
    changed[:, position] = value
    return torch.from_numpy(changed)


def table(path):
    with open(path) as file:
        return list(csv.DictReader(file))


def check_table(rows, G, zs, walk=False):
    """Every label and number, worked out with numpy from the z of each row. Returns the numbers."""
    with torch.no_grad():
        grey = np.stack([(G(z).numpy()[:, 0] + 1) * 127.5 for z in zs.values()])
    change = abs(grey - (grey[[0, *range(len(grey) - 1)]] if walk else grey[0]))
    steps = [abs(np.diff(grey, axis=axis)).mean((1, 2, 3)) for axis in (2, 3)]
    pairs = itertools.combinations(range(grey.shape[1]), 2)
    pairs = [abs(grey[:, one] - grey[:, other]).mean((1, 2)) for one, other in pairs]
    numbers = {
        "brightness": grey.mean((1, 2, 3)),
        "change": change.mean((1, 2, 3)),
        "pixels moved %": (change > 25.5).mean((1, 2, 3)) * 100,
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
    numbers = check_table(table("runs/gan_mlp/perturb.csv"), G, {"unchanged": z} | zs)

    # the first lines: a mean for each value and position, and the answers
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
    assert 8 * 87 < width < 8 * 87 + 200 and 16 * 87 < height < 16 * 87 + 100


def test_add_and_negative_numbers_in_any_notation(type_in):
    G, z = generator("here"), noise()
    values = ["--values", "3", "-1e1", "-.5"]
    result = type_in("perturb", "--ckpt", "here", "--add", "--positions", "5", "99", *values)
    cells = itertools.product((5, 99), {"+ 3": 3, "- 10": -10, "- 0.5": -0.5}.items())
    zs = {f"z[{p}] {name}": change(z, p, z[:, p] + value) for p, (name, value) in cells}
    numbers = check_table(table("here/perturb.csv"), G, {"unchanged": z} | zs)
    bright = numbers["brightness"][1:].reshape(2, 3)[:, [1, 2, 0]]  # as the values grow
    assert f"at {(np.diff(bright) > 0).all(1).sum()} of 2 positions" in result.out


def test_scale(type_in):
    G, z = generator("here"), noise()
    result = type_in("perturb", "--ckpt", "here", "--scale", "0", "1", "3")
    zs = {"unchanged": z} | {f"z * {factor}": z * factor for factor in (0, 1, 3)}
    numbers = check_table(table("here/perturb.csv"), G, zs)
    sharp, diverse = (numbers[name][3] / numbers[name][0] for name in ("sharpness", "diversity"))
    assert f"z * 3: sharpness {sharp:.2f}, diversity {diverse:.2f} of the unchanged" in result.out


def test_interpolation_walks_on_the_sphere(type_in):
    G, z = generator("here"), noise()
    result = type_in("perturb", "--ckpt", "here", "--interpolate", "7")
    angle = torch.arccos(z[0] @ z[-1] / z[0].norm() / z[-1].norm())
    zs = {}
    for part in range(7):
        a, b = torch.sin(angle * (6 - part) / 6), torch.sin(angle * part / 6)
        zs[f"{part / 6:.2f}"] = ((a * z[0] + b * z[-1]) / torch.sin(angle))[None]
    steps = check_table(table("here/perturb.csv"), G, zs, walk=True)["change"][1:]
    assert f"from step to step: {steps.min():.1f} to {steps.max():.1f}" in result.out
    height, width = plt.imread("here/perturb.png").shape[:2]
    assert width > 7 * 87 and height < 200  # one row


def test_one_sample_and_a_table_longer_than_the_screen(type_in):
    generator("here")
    values = ["--values", *map(str, range(7))]
    out = type_in("perturb", "--ckpt", "here", "--samples", "1", *values).out
    assert "and 20 more rows" in out and out.count("\nz[") == 15
    assert len(table("here/perturb.csv")) == 36


def test_seeds_and_nothing_is_overwritten(type_in):
    """A figure for each seed, one table, and the mean over the seeds."""
    G, names = generator("here"), {"perturb.csv", "perturb-2.csv", "g.pt"}
    for _ in range(2):
        out = type_in("perturb", "--ckpt", "here", *SHORT, "--seed", "1", "114514").out
    assert type_in("perturb", "--ckpt", "here", *SHORT, "--out", "there/mine.png").code == 0
    names |= {f"perturb{n}-seed{seed}.png" for n in ("", "-2") for seed in (1, 114514)}
    assert {path.name for path in Path("here").iterdir()} == names
    assert {path.name for path in Path("there").iterdir()} == {"mine.csv", "mine.png"}
    means = []
    for seed in (1, 114514):
        z = noise(seed=seed)
        rows = [row for row in table("here/perturb-2.csv") if row["seed"] == str(seed)]
        numbers = check_table(rows, G, {"unchanged": z, "z[0] = 1": change(z, 0, 1)})
        means.append([*numbers["brightness"], *numbers["change"]])
    before, bright, _, moved = np.mean(means, axis=0)
    out = out.partition("mean over the seeds\n")[2]
    assert f"unchanged: brightness {before:.1f}\n" in out
    assert f"value 1: brightness {bright:.1f}, change {moved:.1f}\n" in out


@pytest.mark.parametrize("script, arch", [(s, arch) for s in ARCHS for arch in ARCHS[s]])
def test_every_architecture(script, arch, type_in):
    generator("here", script, arch, z_dim=30)
    assert type_in("perturb", "--ckpt", "here", *SHORT).code == 0
    before, after = (float(row["change"]) for row in table("here/perturb.csv"))
    assert before == 0 < after


def test_corners(type_in):
    """A z of one entry, samples that are all alike, and positions for a short z."""
    G = generator("one", z_dim=1)
    for line in (["--interpolate", "3"], ["--scale", "2"], []):
        result = type_in("perturb", "--ckpt", "one", *line)
        assert result.code == 0 and "nan" not in result.out, result.err
    weights = {name: torch.zeros_like(weight) for name, weight in G.state_dict().items()}
    generator("alike", z_dim=1, changes={"state_dict": weights})
    assert type_in("perturb", "--ckpt", "alike", "--scale", "2").code == 0
    generator("short", z_dim=50)
    assert type_in("perturb", "--ckpt", "short").code == 0
    assert "z[40] = 10" in [row["row"] for row in table("short/perturb.csv")]


def test_which_generator(type_in):
    assert f"generator: {perturb.SHIPPED}" in type_in("perturb", *SHORT, "--out", "a.png").out
    for folder in ("runs/old", "runs/new", "."):
        generator(folder)
    os.utime("runs/old/g.pt", (1, 1))
    shutil.copy("g.pt", "runs/new/ckpt.pt")
    for given, found in ("", "runs/new/g.pt"), ("g.pt", "g.pt"), ("runs/old", "runs/old/g.pt"):
        assert f"generator: {found}" in type_in("perturb", "--ckpt", given, *SHORT).out
    Path("g.pt").unlink()
    for name in ("g.pt", "ckpt.pt"):
        assert f"generator: runs/new/{name}" in type_in("perturb", "--ckpt", name, *SHORT).out


def test_a_generator_of_a_copied_script(type_in):
    """A script is found beside perturb.py or in the current folder, if it has ARCHS."""
    Path("mine.py").write_text((HERE / "gan_mlp.py").read_text())
    generator("here", changes={"script": "mine"})
    assert type_in("perturb", "--ckpt", "here", "--out", "mine.png").code == 0
    Path("other.py").write_text("import pathlib; pathlib.Path('code-was-run').touch()")
    generator("there", changes={"script": "other"})
    check(type_in("perturb", "--ckpt", "there/g.pt"), "no other.py with ARCHS")


def test_a_whole_checkpoint_will_do(type_in):
    assert (
        type_in("gan_mlp", "--epochs", "1", "--batch-size", "16", "--data-dir", "../data").code == 0
    )
    for name in ("g.pt", "ckpt.pt"):
        assert type_in("perturb", "--ckpt", f"runs/gan_mlp/{name}", *SHORT).code == 0
    assert table("runs/gan_mlp/perturb.csv") == table("runs/gan_mlp/perturb-2.csv")


def test_the_shipped_generator_is_small_and_trained_as_the_readme_says():
    assert perturb.SHIPPED.stat().st_size < 3e6
    _, saved = perturb.load_generator(perturb.SHIPPED)
    assert saved["args"]["dataset"] == "fashion-mnist"
    command = f"python {saved['script']}.py --arch {saved['arch']}"
    assert command in (HERE / "docs" / "quality.md").read_text()


@pytest.fixture
def figure():
    """The sliders of the generator in data."""
    G, _ = perturb.load_generator(str(perturb.SHIPPED))
    figure = perturb.live(G, noise(), perturb.spread(100))
    figure.canvas.draw()
    yield figure
    plt.close(figure)


def point(axes, across=0.5):
    """A place in axes, as pixels of the figure."""
    return axes.transAxes.transform((across, 0.5)).tolist()


def click(canvas, x, y):
    for name in ("button_press_event", "button_release_event"):
        canvas.callbacks.process(name, MouseEvent(name, canvas, x, y, 1))


def test_live_follows_its_sliders(figure):
    """Under the backend without a screen: every widget, and the pixels that it leads to."""
    G, _ = perturb.load_generator(perturb.SHIPPED)
    images, widgets, z, changed = figure.axes[0], figure.widgets, noise(), noise()

    def shows(z):
        with torch.inference_mode():
            return np.array_equal(images.images[0].get_array(), common.grid(G(z), 8, zoom=1))

    assert shows(z)
    widgets[20].set_val(5)
    changed[:, 20] = 5
    assert shows(changed) and "change" in images.get_xlabel()
    click(figure.canvas, *point(images, 0.3))  # on the third sample
    widgets[0].set_val(-4)
    changed[2, 0] = -4
    assert shows(changed) and "sample 3" in images.get_title()
    click(figure.canvas, 1, 1)  # beside the samples
    widgets[40].set_val(3)
    changed[:, 40] = 3
    widgets["scale"].set_val(0.5)
    assert shows(changed * 0.5)
    click(figure.canvas, *point(widgets["back"].ax))
    assert shows(z) and widgets["scale"].val == 1
    click(figure.canvas, *point(widgets["new z"].ax))
    assert not shows(z)


CANVAS = """(canvas => {
    if (document.readyState != "complete" || canvas.width * canvas.height < 1e5) throw "too early"
    const {x, y} = canvas.getBoundingClientRect()
    const {bottom} = document.querySelector("#figures").getBoundingClientRect()
    return [x, y, bottom, canvas.toDataURL()]
})(document.querySelector("canvas"))"""


async def compare(devtools, address, figure):
    """Click and drag in a page and in a figure of our own: they must come to show the same."""
    from tornado.httpclient import AsyncHTTPClient
    from tornado.websocket import websocket_connect

    new = f"http://{devtools}/json/new?{address}"
    page = json.loads((await AsyncHTTPClient().fetch(new, method="PUT", body="")).body)
    socket = await websocket_connect(page["webSocketDebuggerUrl"])

    async def ask(method, **params):
        await socket.write_message(json.dumps({"id": 1, "method": method, "params": params}))
        return json.loads(await socket.read_message())["result"]

    async def until_same():
        figure.canvas.draw()
        wanted, same = np.asarray(figure.canvas.buffer_rgba()) / 255, False
        while not same:
            await asyncio.sleep(0.1)
            seen = await ask("Runtime.evaluate", expression=CANVAS, returnByValue=True)
            if "value" in seen["result"]:  # the page is there
                *place, bottom, url = seen["result"]["value"]
                shown = plt.imread(io.BytesIO(base64.b64decode(url.partition(",")[2])))
                # not the same to the bit: the layout may be a fraction of a pixel aside
                same = shown.shape == wanted.shape and abs(shown - wanted).mean() < 1e-3
        assert bottom <= 700  # no need to scroll on a laptop
        return place

    left, top = await until_same()
    sample, slider = point(figure.axes[0], 0.3), figure.widgets[20]
    begin, end = point(slider.ax), point(slider.ax, 1.02)
    click(figure.canvas, *sample)
    slider.set_val(10)
    path = [("Pressed", sample), ("Released", sample)]
    path += [("Pressed", begin), ("Moved", end), ("Released", end)]
    for kind, (x, y) in path:
        how = {"type": f"mouse{kind}", "button": "left", "buttons": 1, "clickCount": 1}
        await ask("Input.dispatchMouseEvent", x=left + x, y=top + figure.bbox.height - y, **how)
    await until_same()


@pytest.mark.skipif(not CHROMIUM, reason="there is no chromium")
def test_live_in_a_browser(figure, tmp_path):
    """Where no window opens, a page on this machine has the same sliders, until Ctrl-C."""
    pytest.importorskip("tornado")
    options = ["--headless=new", "--no-sandbox", "--remote-debugging-port=0"]
    options += ["--window-size=1280,800", f"--user-data-dir={tmp_path}"]
    server = start("perturb", "--live", cwd=tmp_path, env=os.environ | {"MPLBACKEND": "agg"})
    browser = subprocess.Popen([CHROMIUM, *options], stderr=subprocess.PIPE, text=True)
    alarm = threading.Timer(300, lambda: (server.kill(), browser.kill()))
    alarm.start()  # whatever is being waited for then ends in an error
    try:
        *_, tunnel, page, _ = [server.stdout.readline() for _ in range(5)]
        address = page.split()[-1]
        devtools = next(line for line in browser.stderr if "DevTools" in line).split("/")[2]
        asyncio.run(compare(devtools, address, figure))
        server.send_signal(signal.SIGINT)
        errors = server.communicate()[1]
        assert (errors, server.returncode) == ("", 130)
    finally:
        alarm.cancel()
        alarm.function()
        browser.communicate()
    port = address.removeprefix("http://127.0.0.1:")
    assert f"ssh -L {port}:127.0.0.1:{port} " in tunnel


def test_live_with_neither_window_nor_tornado(type_in, monkeypatch):
    generator("here")
    monkeypatch.setitem(sys.modules, "tornado", None)
    check(type_in("perturb", "--ckpt", "here", "--live"), "pip install tornado")


MISTAKES = {
    "--positions 100": "from 0 to 99",
    "--positions -1": "from 0 to 99",
    "--positions 3 3": "twice",
    "--positions 0,20,40": "put spaces",
    "--values -1, 5": "put spaces",
    "--values nan": "a number from",
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
    assert not [path for path in tree(".") if path.name.startswith(("perturb", "figure", "code"))]


class Evil:
    def __reduce__(self):
        return Path("code-was-run").touch, ()


LIES = [
    ({"script": "os"}, "no os.py with ARCHS"),
    ({"script": f"../{HERE.name}/gan_mlp"}, "with ARCHS"),
    ({"arch": "other"}, "no --arch other"),
    ({"z_dim": "many"}, "no checkpoint"),
    ({"z_dim": 50}, "does not fit"),
    ({"state_dict": None}, "does not fit"),
    ({"args": Evil()}, "no checkpoint"),
]


@pytest.mark.parametrize("changes, text", LIES)
def test_files_that_lie(changes, text, type_in):
    generator("here", changes=changes)
    check(type_in("perturb", "--ckpt", "here/g.pt"), text)


def test_damaged_files(type_in):
    G = generator("here")
    path = Path("here/g.pt")
    whole = path.read_bytes()
    for body in (whole[:-1000], whole[:50], b"", pickle.dumps(Evil())):
        path.write_bytes(body)
        check(type_in("perturb", "--ckpt", "here/g.pt"), "no checkpoint")
    weights = {name: weight * torch.nan for name, weight in G.state_dict().items()}
    generator("here", changes={"state_dict": weights})
    check(type_in("perturb", "--ckpt", "here/g.pt"), "not finite")
