"""perturb.py: its pictures and numbers worked out anew, and every mistake."""

import asyncio
import base64
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
from conftest import HERE, Evil, read, small, start, tree
from matplotlib.backend_bases import MouseEvent

import common
import gan_mlp
import perturb

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
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
    assert 8 * 87 < width < 8 * 87 + 200 and 16 * 87 < height < 16 * 87 + 100


def test_add_scale_and_a_walk_on_the_sphere(type_in):
    G, z = generator("here"), noise()
    run = ["perturb", "--ckpt", "here", "--out"]
    values = ["--positions", "5", "99", "--values", "3", "-1e1", "-.5"]  # in any notation
    out = type_in(*run, "add.png", "--add", *values).out
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
    for part in range(7):
        a, b = torch.sin(angle * (6 - part) / 6), torch.sin(angle * part / 6)
        zs[f"{part / 6:.2f}"] = ((a * z[0] + b * z[-1]) / torch.sin(angle))[None]
    steps = check_table(read(".", "walk.csv"), G, zs, walk=True)["change"][1:]
    assert f"from step to step: {steps.min():.1f} to {steps.max():.1f}" in out
    height, width = plt.imread("walk.png").shape[:2]
    assert width > 7 * 87 and height < 200  # one row


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
    for line in (["--interpolate", "3"], ["--scale", "2"], ["--samples", "1"]):
        result = type_in("perturb", "--ckpt", "one", *line)
        assert result.code == 0 and "nan" not in result.out, result.err
    weights = {name: torch.zeros_like(weight) for name, weight in G.state_dict().items()}
    generator("alike", z_dim=1, changes={"state_dict": weights})
    assert type_in("perturb", "--ckpt", "alike", "--scale", "2").code == 0
    generator("short", z_dim=50)
    out = type_in("perturb", "--ckpt", "short", "--values", *map(str, range(7))).out
    assert "and 20 more rows" in out and out.count("\nz[") == 15
    rows = read("short", "perturb.csv")
    assert len(rows) == 36 and rows[-1]["row"] == "z[40] = 6"


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
    # a whole checkpoint will do: its average draws
    type_in(*small(["gan_mlp"], "--epochs", "1", "--out", "run"))
    for name in ("g.pt", "ckpt.pt"):
        assert type_in("perturb", "--ckpt", f"run/{name}", *SHORT).code == 0
    assert read("run", "perturb.csv") == read("run", "perturb-2.csv")


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
    const url = canvas.toDataURL()
    if (!url.startsWith("data:image/png")) throw "too early"
    return [x, y, bottom, url]
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
    "--seed 1 1": "twice",
    "--interpolate 1": "from 2 ",
    "--interpolate 5 --samples 1": "--samples 2",
    "--interpolate 5 --scale 2": "not allowed",
    "--scale 2 --positions 5": "leave",
    f"--scale {' '.join(map(str, range(600)))}": "draw less",
    "--ckpt nothing.pt": "there is no file nothing.pt. Known generators: runs/here/g.pt",
    "--ckpt ../data/train-images-idx3-ubyte.gz": "no checkpoint",
    "--out figure.jpg": "does not end in .png",
    "--out runs/here/taken.png": "exists already",
    "--out runs/here/g.pt/figure.png": "runs/here/g.pt",
}


def check(result, text):
    assert result.code == 2 and "Traceback" not in result.err and text in result.err
    assert not [path for path in tree(".") if path.name.startswith(("perturb", "figure", "code"))]


def test_mistakes(type_in):
    generator("runs/here")
    Path("runs/here/taken.png").touch()
    for line, text in MISTAKES.items():
        check(type_in("perturb", "--ckpt", "runs/here", *line.split()), text)


def test_files_that_lie_or_are_damaged(type_in):
    Path("other.py").write_text("import pathlib; pathlib.Path('code-was-run').touch()")
    weights = {"fc1.weight": torch.full((128, 100), torch.nan)}
    for changes, text in (
        ({"script": "os"}, "no os.py with ARCHS"),
        ({"script": "other"}, "no other.py with ARCHS"),
        ({"script": f"../{HERE.name}/gan_mlp"}, "with ARCHS"),
        ({"arch": "other"}, "no --arch other"),
        ({"z_dim": "many"}, "no checkpoint"),
        ({"z_dim": 50}, "does not fit"),
        ({"state_dict": None}, "does not fit"),
        ({"state_dict": generator("here").state_dict() | weights}, "not finite"),
        ({"args": Evil()}, "no checkpoint"),
    ):
        generator("here", changes=changes)
        check(type_in("perturb", "--ckpt", "here/g.pt"), text)
    generator("here")
    whole = Path("here/g.pt").read_bytes()
    for body in (whole[:-1000], whole[:50], b"", pickle.dumps(Evil())):
        Path("here/g.pt").write_bytes(body)
        check(type_in("perturb", "--ckpt", "here/g.pt"), "no checkpoint")
