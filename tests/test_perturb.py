"""perturb.py: its figures and numbers worked out anew, and every mistake."""

import itertools
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from conftest import HERE, read

import common
import gan_cnn
import gan_mlp
import perturb

TENTH = 25.5  # of the range of grey levels


# ---- generators, and what they must draw
def trained(folder):
    """Copy the trained generator of data into a folder. Returns it, loaded by hand."""
    Path(folder).mkdir(parents=True)
    shutil.copy(perturb.SHIPPED, folder)
    saved = torch.load(perturb.SHIPPED, weights_only=True)
    G = gan_cnn.SeparableGenerator(saved["z_dim"])
    G.load_state_dict(saved["state_dict"])
    return G.eval()


def untrained(folder, z_dim=100, lies=None):
    """A g.pt as a run leaves it, but for what lies says; and its generator."""
    torch.manual_seed(0)
    G = gan_mlp.BasicGenerator(z_dim)
    content = {
        "script": "gan_mlp",
        "arch": "basic",
        "z_dim": z_dim,
        "epoch": 3,
        "args": {},
        "state_dict": G.state_dict(),
    }
    Path(folder).mkdir(parents=True, exist_ok=True)
    torch.save(content | (lies or {}), Path(folder, "g.pt"))
    return G.eval()


def noise(samples=8, seed=23231, z_dim=100):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(samples, z_dim, generator=random)


def with_entry(z, position, value):
    changed = z.numpy().copy()
    changed[:, position] = value
    return torch.from_numpy(changed)


def images_of(G, z):
    with torch.no_grad():
        return G(z)


def picture_of(G, zs, columns):
    """All images of all z, as the figure must show them."""
    images = [images_of(G, z) for z in zs.values()]
    return common.grid(torch.cat(images), columns)


def grey_levels(images):
    return (images.numpy()[:, 0] + 1) * 127.5


def expected_numbers(images, compared):
    """A row of the table, worked out with numpy."""
    grey = grey_levels(images)
    change = abs(grey - grey_levels(compared))
    down = abs(np.diff(grey, axis=1))
    across = abs(np.diff(grey, axis=2))
    numbers = {
        "brightness": grey.mean(),
        "change": change.mean(),
        "pixels moved %": 100 * (change > TENTH).mean(),
        "sharpness": (down.mean() + across.mean()) / 2,
    }
    distances = []
    for one, other in itertools.combinations(grey, 2):
        distances.append(abs(one - other).mean())
    if distances:
        numbers["diversity"] = np.mean(distances)
    return numbers


def check_table(rows, G, zs, is_walk=False):
    """Every label and every number of a table. Returns the columns of numbers."""
    assert [row["row"] for row in rows] == list(zs), "the labels"
    columns = {}
    compared = None
    for row, z in zip(rows, zs.values()):
        images = images_of(G, z)
        if compared is None:
            compared = images
        wanted = expected_numbers(images, compared)
        near = pytest.approx(wanted, rel=1e-3, abs=1e-3)
        assert numbers_in(row) == near, row["row"]
        for name, number in wanted.items():
            columns[name] = np.append(columns.get(name, []), number)
        if is_walk:  # each with the one before it; else, all with the first
            compared = images
    return columns


def numbers_in(row):
    numbers = dict(row)
    del numbers["seed"], numbers["row"]
    return {name: float(number) for name, number in numbers.items()}


@pytest.fixture
def draw(type_in):
    """Type a perturb.py command that must do its work. What it prints."""

    def run(line):
        result = type_in("perturb", *line.split())
        assert result.code == 0, f"{line}: {result.err}"
        assert result.err == "", line
        return result.out

    return run


@pytest.fixture
def sheets(monkeypatch):
    """What is drawn into each file: a picture, its title, its labels."""
    drawn = {}
    save_sheet = common.save_sheet

    def keep(path, picture, title="", columns=(), rows=()):
        drawn[path.name] = SimpleNamespace(
            picture=picture,
            title=title,
            columns=list(columns),
            rows=list(rows),
        )
        save_sheet(path, picture, title, columns=columns, rows=rows)

    monkeypatch.setattr(common, "save_sheet", keep)
    return drawn


def check_lines(out, *lines):
    for line in lines:
        assert f"\n  {line}\n" in out


# ---- the experiment
EXAMPLE = "--ckpt g.pt --positions 0 20 40 60 80 --values -1 5 10"


def example_rows():
    z = noise()
    zs = {"unchanged": z}
    for position in (0, 20, 40, 60, 80):
        for value in (-1, 5, 10):
            zs[f"z[{position}] = {value}"] = with_entry(z, position, value)
    return zs


def count_growing(rows):
    """How many rows of numbers grow from each number to the next."""
    return (np.diff(rows) > 0).all(axis=1).sum()


def test_the_example_as_typed_has_every_number_right(draw):
    G = trained("runs/gan_cnn")
    out = draw(EXAMPLE)
    rows = read("runs/gan_cnn", "perturb.csv")
    columns = check_table(rows, G, example_rows())
    brightness = columns["brightness"][1:].reshape(5, 3)
    change = columns["change"][1:].reshape(5, 3)
    growing = count_growing(brightness)
    assert columns["pixels moved %"].max() > 10, "a trained G must move some pixels"
    assert 0 < growing < 5, "here, all or none would tell less"
    check_lines(
        out,
        f"unchanged: brightness {columns['brightness'][0]:.1f}",
        f"value -1: brightness {brightness[:, 0].mean():.1f}, "
        f"change {change[:, 0].mean():.1f}",
        f"value 10: brightness {brightness[:, 2].mean():.1f}, "
        f"change {change[:, 2].mean():.1f}",
        f"position 0: change {change[0].mean():.1f}",
        f"position 40: change {change[2].mean():.1f}",
        f"the position that moves the picture most: {20 * change.mean(1).argmax()}",
        f"brightness grows with the value at {growing} of 5 positions",
    )


def test_the_example_draws_what_the_table_measures(draw, sheets):
    G = trained("runs/gan_cnn")
    draw(EXAMPLE)
    (sheet,) = sheets.values()
    zs = example_rows()
    assert np.array_equal(sheet.picture, picture_of(G, zs, columns=8))
    assert sheet.rows == list(zs)
    assert sheet.columns == []
    assert sheet.title == "gan_cnn.py --arch separable, epoch 100, seed 23231"
    # 8 columns and 16 rows of pictures at three dots a pixel, and room for labels
    height, width = plt.imread("runs/gan_cnn/perturb.png").shape[:2]
    assert 0 < width - 8 * 87 < 200
    assert 0 < height - 16 * 87 < 100


def test_the_screen_shows_the_numbers_that_are_saved(draw):
    trained("here")
    out = draw("--ckpt here --positions 20 --values 5")
    lines = out.splitlines()
    for row in read("here", "perturb.csv"):
        numbers = [f"{number:.2f}" for number in numbers_in(row).values()]
        (line,) = [line for line in lines if line.startswith(f"{row['row']}   ")]
        assert line.removeprefix(row["row"]).split() == numbers
    assert lines[-1] == "saved here/perturb.png here/perturb.csv"


def test_the_default_positions_are_spread_over_z():
    assert perturb.spread(100) == [0, 20, 40, 60, 80]
    assert perturb.spread(10) == [0, 2, 4, 6, 8]
    assert perturb.spread(3) == [0, 1, 2]
    assert perturb.spread(1) == [0]


def test_the_default_values_are_the_examples(draw):
    G = trained("runs/gan_cnn")
    draw("")
    check_table(read("runs/gan_cnn", "perturb.csv"), G, example_rows())


def test_add_adds_to_the_entry(draw):
    """And values may be in any notation, and in any order."""
    G = trained("here")
    out = draw("--ckpt here --add --positions 5 99 --values 3 -1e1 -.5")
    z = noise()
    zs = {"unchanged": z}
    for position in (5, 99):
        zs[f"z[{position}] + 3"] = with_entry(z, position, z[:, position] + 3)
        zs[f"z[{position}] - 10"] = with_entry(z, position, z[:, position] - 10)
        zs[f"z[{position}] - 0.5"] = with_entry(z, position, z[:, position] - 0.5)
    columns = check_table(read("here", "perturb.csv"), G, zs)
    brightness = columns["brightness"][1:].reshape(2, 3)
    as_values_grow = brightness[:, [1, 2, 0]]
    growing = count_growing(as_values_grow)
    check_lines(out, f"brightness grows with the value at {growing} of 2 positions")


def test_brightness_grows_if_it_does_from_every_value_to_the_next():
    grows = [1, 2, 3]
    falls_at_last = [1, 3, 2]
    falls = [3, 2, 1]
    table = {
        "brightness": [0, *grows, *falls_at_last, *falls],
        "change": [0] * 10,
    }
    lines = perturb.summary_of_entries(table, positions=[7, 8, 9], values=[-1, 5, 10])
    assert lines[-1] == "brightness grows with the value at 1 of 3 positions"


def test_one_value_says_nothing_of_growing(draw):
    trained("here")
    assert "grows" not in draw("--ckpt here --positions 5 --values 3")


def test_scale_multiplies_the_whole_z(draw):
    G = trained("here")
    out = draw("--ckpt here --scale 0 1 3")
    z = noise()
    zs = {"unchanged": z, "z * 0": z * 0, "z * 1": z, "z * 3": z * 3}
    columns = check_table(read("here", "perturb.csv"), G, zs)
    sharpness = columns["sharpness"] / columns["sharpness"][0]
    diversity = columns["diversity"] / columns["diversity"][0]
    check_lines(
        out,
        f"z * 0: sharpness {sharpness[1]:.2f}, diversity 0.00 of the unchanged row's",
        "z * 1: sharpness 1.00, diversity 1.00 of the unchanged row's",
        f"z * 3: sharpness {sharpness[3]:.2f}, diversity {diversity[3]:.2f}"
        " of the unchanged row's",
    )


def test_interpolate_walks_along_the_sphere(draw, sheets):
    G = trained("here")
    out = draw("--ckpt here --interpolate 7")
    first = noise()[:1]
    last = noise()[-1:]
    cosine = (first * last).sum() / (first.norm() * last.norm())
    angle = torch.arccos(cosine)
    zs = {}
    for step in range(7):
        t = step / 6
        of_first = torch.sin(angle * (1 - t)) / torch.sin(angle)
        of_last = torch.sin(angle * t) / torch.sin(angle)
        zs[f"{t:.2f}"] = of_first * first + of_last * last
    rows = read("here", "perturb.csv")
    columns = check_table(rows, G, zs, is_walk=True)
    steps = columns["change"][1:]
    check_lines(out, f"changes from step to step: {min(steps):.1f} to {max(steps):.1f}")

    sheet = sheets["perturb.png"]
    assert np.array_equal(sheet.picture, picture_of(G, zs, columns=7))
    assert sheet.columns == list(zs)
    assert sheet.rows == []


def test_each_seed_has_a_figure_and_its_rows_in_one_table(draw, sheets):
    """And the last summary is of the mean over the seeds."""
    G = trained("here")
    out = draw("--ckpt here --positions 0 --values 1 --seed 1 114514")
    names = {"g.pt", "perturb.csv", "perturb-seed1.png", "perturb-seed114514.png"}
    assert {path.name for path in Path("here").iterdir()} == names
    brightness = []
    change = []
    for seed in (1, 114514):
        z = noise(seed=seed)
        zs = {"unchanged": z, "z[0] = 1": with_entry(z, 0, 1)}
        table = read("here", "perturb.csv")
        rows = [row for row in table if row["seed"] == str(seed)]
        columns = check_table(rows, G, zs)
        brightness.append(columns["brightness"])
        change.append(columns["change"])
        sheet = sheets[f"perturb-seed{seed}.png"]
        assert np.array_equal(sheet.picture, picture_of(G, zs, columns=8))
        assert sheet.title.endswith(f", seed {seed}")
        assert f"\nseed {seed}\n  unchanged: brightness {brightness[-1][0]:.1f}" in out
    unchanged, changed = np.mean(brightness, axis=0)
    _, by_how_much = np.mean(change, axis=0)
    _, _, mean = out.partition("mean over the seeds")
    check_lines(
        mean,
        f"unchanged: brightness {unchanged:.1f}",
        f"value 1: brightness {changed:.1f}, change {by_how_much:.1f}",
    )


def test_nothing_is_overwritten(draw):
    untrained("here")
    line = "--ckpt here --positions 0 --values 1 --samples 1"
    for _ in range(3):
        draw(line)
    draw(f"{line} --out new/folder/figure.png")
    names = {path.name for path in Path("here").iterdir()}
    tables = {"perturb.csv", "perturb-2.csv", "perturb-3.csv"}
    figures = {"perturb.png", "perturb-2.png", "perturb-3.png"}
    assert names == {"g.pt"} | tables | figures
    names = {path.name for path in Path("new", "folder").iterdir()}
    assert names == {"figure.png", "figure.csv"}


def test_the_columns_of_the_table_by_hand():
    """Two images of two by two pixels; in the second row, one pixel is grey."""
    corner = [[-1, -1], [-1, 1]]
    grey_corner = [[0, -1], [-1, 1]]
    floor = [[-1, -1], [1, 1]]
    too_bright = [[-1, -1], [1, 9]]  # is drawn as a floor
    images = [[[corner], [floor]], [[grey_corner], [too_bright]]]
    table = perturb.measure(torch.tensor(images, dtype=torch.float))
    white = 255
    grey = 127.5
    assert table["brightness"] == [white * 3 / 8, (white * 3 + grey) / 8]
    assert table["change"] == [0, grey / 8]
    assert table["pixels moved %"] == [0, 100 / 8]
    across = [white / 4, (white + grey) / 4]  # steps from neighbour to neighbour
    down = [white * 3 / 4, (white * 3 + grey) / 4]
    assert table["sharpness"] == [
        (across[0] + down[0]) / 2,
        (across[1] + down[1]) / 2,
    ]
    assert table["diversity"] == [white / 4, (white + grey) / 4]


def test_a_pixel_moved_if_it_differs_by_more_than_a_tenth():
    pixels = torch.tensor([[0.19, -0.19], [0.21, -0.21]])
    row = torch.zeros(1, 1, 2, 2)
    changed = pixels.view(1, 1, 2, 2)
    table = perturb.measure(torch.stack([row, changed]))
    assert table["pixels moved %"] == [0, 50]


# ---- corners
def test_a_z_of_one_entry(draw):
    G = untrained("one", z_dim=1)
    z = noise(z_dim=1)
    draw("--ckpt one --values 2")
    zs = {"unchanged": z, "z[0] = 2": with_entry(z, 0, 2)}
    check_table(read("one", "perturb.csv"), G, zs)
    assert "nan" not in draw("--ckpt one --scale 2")
    # no sphere has one dimension: the walk is a line
    draw("--ckpt one --interpolate 3 --out line.png")
    middle = (z[:1] + z[-1:]) / 2
    zs = {"0.00": z[:1], "0.50": middle, "1.00": z[-1:]}
    check_table(read(".", "line.csv"), G, zs, is_walk=True)


def test_a_walk_from_z_to_the_same_z_stays_there():
    for seed in range(50):  # rounding may make their cosine larger than 1
        z = torch.randn(100, generator=torch.manual_seed(seed))
        for _, reached in perturb.walk(z, z.clone(), steps=3):
            assert torch.allclose(reached, z, rtol=1e-3, atol=1e-3)


def test_one_sample_has_no_diversity(draw):
    G = untrained("here")
    z = noise(samples=1)
    draw("--ckpt here --samples 1 --positions 0 --values 3")
    zs = {"unchanged": z, "z[0] = 3": with_entry(z, 0, 3)}
    check_table(read("here", "perturb.csv"), G, zs)
    assert "diversity" not in draw("--ckpt here --samples 1 --scale 2")


def test_images_that_are_all_alike(draw):
    weights = untrained("here").state_dict()
    zeros = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    untrained("here", lies={"state_dict": zeros})
    out = draw("--ckpt here --scale 2")
    check_lines(out, "z * 2: sharpness 0.00, diversity 0.00 of the unchanged row's")


def test_a_long_table_is_cut_on_the_screen_alone(draw):
    untrained("short", z_dim=50)
    out = draw("--ckpt short --values 0 1 2 3 4 5 6")
    assert "... and 20 more rows in the table that is saved" in out
    assert out.count("\nz[") == 15
    names = [row["row"] for row in read("short", "perturb.csv")]
    assert len(names) == 36
    assert names[-1] == "z[40] = 6"


# ---- which generator
SHORT = "--positions 0 --values 1 --samples 1"


def test_the_newest_runs_generator_is_taken(draw):
    for folder in ("runs/old", "runs/new", "runs/newest-dry-run", "."):
        untrained(folder)
    os.utime("runs/old/g.pt", (1, 1))
    assert "generator: runs/new/g.pt (" in draw(SHORT)
    assert "generator: g.pt (" in draw(f"--ckpt g.pt {SHORT}")
    assert "generator: runs/old/g.pt (" in draw(f"--ckpt runs/old {SHORT}")
    assert "generator: runs/old/g.pt (" in draw(f"--ckpt runs/old/g.pt {SHORT}")
    Path("g.pt").unlink()
    assert "generator: runs/new/g.pt (" in draw(f"--ckpt g.pt {SHORT}")


def test_before_there_is_a_run_it_is_the_one_in_data(draw):
    out = draw(f"{SHORT} --out figure.png")
    what = "gan_cnn.py --arch separable, epoch 100, trained on fashion-mnist"
    assert f"generator: {perturb.SHIPPED} ({what})\n" in out
    how = Path(HERE, "docs", "quality.md").read_text("utf-8")
    assert "python gan_cnn.py --arch separable" in how


def test_a_checkpoint_draws_as_the_g_pt_beside_it(draw, type_in):
    run = "--dry-run --dataset sample --device cpu --batch-size 16"
    assert type_in("gan_mlp", *run.split()).code == 0
    folder = "runs/gan_mlp-dry-run"
    draw(f"--ckpt {folder}/g.pt --positions 0 --values 9")
    draw(f"--ckpt {folder}/ckpt.pt --positions 0 --values 9")
    assert read(folder, "perturb.csv") == read(folder, "perturb-2.csv")


def test_a_loaded_generator_draws_each_image_by_itself():
    """BatchNorm takes its statistics from training, and not from the other images."""
    G, saved = perturb.load_generator(perturb.SHIPPED)
    assert not G.training
    z = noise()
    alone = images_of(G, z[:1])
    among_others = images_of(G, z)[:1]
    torch.testing.assert_close(alone, among_others)
    assert saved["arch"] == "separable"
    assert saved["z_dim"] == 100


# ---- which script
def make_script(name, archs):
    """A copy of gan_mlp.py that says ARCHS in another way."""
    text = Path(HERE, "gan_mlp.py").read_text("utf-8")
    assert text.count("\nARCHS = {") == 1
    Path(name).write_text(text.replace("\nARCHS = {", f"\n{archs}"), "utf-8")


@pytest.mark.parametrize(
    "archs",
    ["ARCHS = {", "ARCHS: dict = {", "ARCHS={", "NETWORKS = ARCHS = {"],
)
def test_a_copy_that_assigns_archs_is_known(draw, archs):
    make_script("mine.py", archs)
    untrained("here", lies={"script": "mine"})
    assert "(mine.py --arch basic, " in draw(f"--ckpt here {SHORT}")


ONLY_LOOKS_LIKE_IT = {
    "nothing": "",
    "a string": 'TEXT = """\nARCHS = {}\n"""',
    "a comment": "# ARCHS = {}",
    "in a function": "def f():\n    ARCHS = {}",
    "without a value": "ARCHS: dict",
    "of another": "other.ARCHS = {}",
    "a similar name": "MY_ARCHS = {}",
}


@pytest.mark.parametrize("text", ONLY_LOOKS_LIKE_IT.values(), ids=ONLY_LOOKS_LIKE_IT)
def test_no_other_script_is_ever_run(refused, text):
    run = "import pathlib\npathlib.Path('code-was-run').touch()\n"
    Path("other.py").write_text(f"{run}{text}\n")
    untrained("here", lies={"script": "other"})
    refused("no other.py with ARCHS", "perturb", "--ckpt", "here")


def test_a_script_elsewhere_is_not_run(refused):
    make_script("../outside.py", "ARCHS = {")
    absolute = str(Path("../outside").resolve())
    for script in ("../outside", absolute, "os", "", "."):
        untrained("here", lies={"script": script})
        refused(f"no {script}.py with ARCHS", "perturb", "--ckpt", "here")


def test_a_script_with_a_mistake_keeps_pythons_own_words(type_in):
    Path("mine.py").write_text("x = 1\nARCHS = {\n")
    untrained("here", lies={"script": "mine"})
    with pytest.raises(SyntaxError, match="'{' was never closed") as error:
        type_in("perturb", "--ckpt", "here")
    assert error.value.filename.endswith("mine.py")
    assert error.value.lineno == 2
    make_script("mine.py", "import no_such_module\nARCHS = {")
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        type_in("perturb", "--ckpt", "here")


# ---- mistakes
LONG = "x" * 300
TOO_MANY = " ".join(str(factor) for factor in range(501))
TOO_LARGE = " ".join(str(factor) for factor in range(126))
MISTAKES = {
    "--positions 100": "from 0 to 99",
    "--positions 99 100": "from 0 to 99",
    "--positions -1": "from 0 to 99",
    "--positions 3 3": "--positions has an entry twice: 3 3",
    "--positions 0,20,40": "0,20,40: put spaces",
    "--values -1, 5": "-1,: put spaces",
    "--values nan": "a number from",
    "--seed 1 1": "--seed has an entry twice: 1 1",
    "--seed -1": "a whole number from 0",
    "--samples 0": "a whole number from 1 to 64",
    "--samples 65": "a whole number from 1 to 64",
    "--interpolate 1": "from 2 to 50",
    "--interpolate 51": "from 2 to 50",
    "--interpolate 5 --samples 1": "--samples 2 or more",
    "--interpolate 5 --scale 2": "not allowed",
    "--interpolate 5 --values 2": "leave --positions",
    "--scale 2 --live": "not allowed",
    "--scale 2 --positions 5": "leave --positions",
    "--scale 2 --add": "leave --positions",
    "--live --values 3": "--live has sliders",
    "--live --add": "--live has sliders",
    "--live --out figure.png": "--live has sliders",
    "--live --seed 1 2": "--live has sliders",
    f"--scale {TOO_MANY}": "501 rows of 8 do not fit into a figure",
    f"--scale {TOO_LARGE} --samples 64": "126 rows of 64 do not fit into a figure",
    "--ckpt nothing.pt": "no file nothing.pt. Known generators: runs/here/g.pt, ",
    "--ckpt runs": "no file runs/g.pt",
    f"--ckpt {LONG}": "there is no file x",
    "--ckpt ../data/train-images-idx3-ubyte.gz": "no checkpoint",
    "--out figure.jpg": "does not end in .png",
    "--out runs/taken.png": "runs/taken.png exists already",
    "--out runs/table.png": "runs/table.csv exists already",
    "--out runs/seeds.png --seed 1 2": "runs/seeds-seed2.png exists already",
    "--out runs/here/g.pt/figure.png": "no folder for the figure: ",
    f"--out {LONG}/figure.png": "no folder for the figure: ",
}


NAMES = [line[:40] for line in MISTAKES]


@pytest.mark.parametrize("line", MISTAKES, ids=NAMES)
def test_a_mistake_ends_in_a_message(refused, monkeypatch, line):
    monkeypatch.setattr(perturb, "show_live", None)  # no window waits for a hand
    untrained("runs/here")
    for name in ("taken.png", "table.csv", "seeds-seed2.png"):
        Path("runs", name).touch()
    refused(MISTAKES[line], "perturb", "--ckpt", "runs/here", *line.split())


def test_sliders_without_a_window_need_tornado(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "tornado", None)
    untrained("here")
    refused("pip install tornado", "perturb", "--ckpt", "here", "--live")


LIES = {
    "another architecture": ({"arch": "other"}, "gan_mlp.py has no --arch other"),
    "no number": ({"z_dim": "many"}, "no checkpoint"),
    "another z_dim": ({"z_dim": 50}, "does not fit"),
    "no weights": ({"state_dict": None}, "does not fit"),
    "code": ({"args": print}, "no checkpoint"),
}


@pytest.mark.parametrize(("lie", "text"), LIES.values(), ids=LIES)
def test_a_file_that_lies_is_refused(refused, lie, text):
    untrained("here", lies=lie)
    refused(text, "perturb", "--ckpt", "here/g.pt")


def test_weights_must_be_finite(refused):
    weights = untrained("here").state_dict()
    weights["fc1.weight"][0, 0] = torch.nan
    untrained("here", lies={"state_dict": weights})
    refused("weights that are not finite", "perturb", "--ckpt", "here")


def test_a_file_without_weights_is_refused(refused):
    untrained("here")
    saved = torch.load("here/g.pt", weights_only=True)
    del saved["state_dict"]
    torch.save(saved, "here/g.pt")
    refused("does not fit", "perturb", "--ckpt", "here")
