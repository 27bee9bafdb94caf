"""The pictures of a run show what they say."""

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch
from conftest import FILES, load, small

import common
import gan_mlp

GOOD = [1.0, 1.0, 0.5, 0.5]  # losses of a step


def pixels(path):
    return (matplotlib.image.imread(path) * 255).round()


def grey(image):
    """From [-1, 1] to the grey levels 0 to 255."""
    return ((image + 1) * 127.5).round().numpy()


@pytest.fixture
def sheets(monkeypatch):
    """What was drawn as a sheet: pictures and labels by the names of their files."""
    drawn = {}

    def save_sheet(path, picture, **labels):
        drawn[path.name] = (picture, labels)

    monkeypatch.setattr(common, "save_sheet", save_sheet)
    return drawn


# ---- when


def note_samples(monkeypatch):
    """The epochs at which a run draws, and the samples and quarters that it draws."""
    drawn = {}

    def save_samples(folder, epoch, fakes, images, quarters):
        drawn[epoch] = (fakes.clone(), quarters)

    monkeypatch.setattr(common, "save_samples", save_samples)
    return drawn


@pytest.mark.parametrize(
    "epochs, wanted",
    [(1, {0, 1}), (2, {0, 1, 2}), (7, {0, 2, 4, 5, 7}), (8, {0, 2, 4, 6, 8})],
)
def test_samples_are_drawn_at_the_quarters(
    epochs, wanted, type_in, monkeypatch, replace_step
):
    replace_step("gan_mlp", lambda _: GOOD)
    drawn = note_samples(monkeypatch)
    type_in(*small(["gan_mlp"], "--epochs", epochs))
    assert set(drawn) == wanted
    for epoch, (_, quarters) in drawn.items():
        assert set(quarters) == wanted, epoch


def test_samples_are_drawn_every_n_epochs_too(type_in, monkeypatch, replace_step):
    replace_step("gan_mlp", lambda _: GOOD)
    drawn = note_samples(monkeypatch)
    type_in(*small(["gan_mlp"], "--epochs", "8", "--sample-every", "3"))
    assert set(drawn) == {0, 2, 4, 6, 8} | {3, 6}


def test_a_resumed_run_draws_at_its_own_quarters(type_in, monkeypatch, replace_step):
    replace_step("gan_mlp", lambda _: GOOD)
    drawn = note_samples(monkeypatch)
    type_in(*small(["gan_mlp"], "--epochs", "4"))
    drawn.clear()
    type_in("gan_mlp", "--resume", "--epochs", "20")
    assert set(drawn) == {5, 10, 15, 20}


# ---- what


def test_all_samples_are_of_the_same_z_and_of_the_average(type_in, monkeypatch):
    drawn = note_samples(monkeypatch)
    type_in(*small(["gan_mlp"], "--epochs", "1"))
    torch.manual_seed(0)
    G = gan_mlp.BasicGenerator()
    gan_mlp.BasicDiscriminator()  # main() makes D before z: it takes random numbers, too
    z = torch.randn(64, 100)
    untrained, _ = drawn[0]
    torch.testing.assert_close(untrained, G(z).detach())
    G.load_state_dict(load("runs/gan_mlp", "g.pt")["state_dict"])
    trained, _ = drawn[1]
    torch.testing.assert_close(trained, G(z).detach())


def test_samples_are_64_images_in_rows_of_eight(tmp_path, sheets):
    fakes = torch.rand(64, 1, 28, 28) * 2 - 1
    images = torch.zeros(8, 1, 28, 28, dtype=torch.uint8)
    common.save_samples(tmp_path, 3, fakes, images, [0, 3])
    sample = pixels(tmp_path / "samples" / "epoch_003.png")
    frame = 1
    side = 28 + frame
    size = 8 * side + frame
    dark_grey = grey(torch.tensor(-0.25))
    wanted = np.full((size, size), dark_grey)
    for number, image in enumerate(fakes):
        row, column = divmod(number, 8)
        top = row * side + frame
        left = column * side + frame
        wanted[top : top + 28, left : left + 28] = grey(image[0])
    zoomed = wanted.repeat(3, axis=0).repeat(3, axis=1)
    np.testing.assert_array_equal(sample, zoomed)


def test_real_images_stand_above_generated_ones(tmp_path, sheets):
    fakes = torch.rand(64, 1, 28, 28) * 2 - 1
    images = torch.randint(256, (100, 1, 28, 28), dtype=torch.uint8)
    common.save_samples(tmp_path, 0, fakes, images, [0])
    compared, labels = sheets["real_vs_fake.png"]
    assert labels["rows"] == ["real", "generated"]
    compared = compared[::3, ::3]  # each pixel is zoomed to 3 by 3
    compared = compared[1:, 1:]  # without the frame above and on the left
    real, fake = np.split(compared, 2)
    for number in range(8):
        left = number * (28 + 1)
        columns = slice(left, left + 28)
        np.testing.assert_array_equal(real[:28, columns], images[number, 0])
        np.testing.assert_array_equal(fake[:28, columns], grey(fakes[number, 0]))


def test_progress_shows_the_samples_nearest_to_the_quarters(tmp_path, sheets):
    samples = tmp_path / "samples"
    samples.mkdir()
    for epoch in (0, 1, 4, 10, 12, 13):
        picture = np.full((20, 30), 10 * epoch, dtype=np.uint8)
        common.save_png(samples / f"epoch_{epoch:03d}.png", picture)
    common.save_png(samples / "epoch_best.png", picture)  # a user's own
    common.save_progress(tmp_path, [0, 3, 7, 11, 13])
    strip, labels = sheets["progress.png"]
    shown = [0, 4, 10, 13]  # 4 is nearest to 3 and to 7; 10 is as near to 11 as 12
    assert labels["columns"] == [f"epoch {epoch}" for epoch in shown]
    parts = np.split(strip, 4, axis=1)
    for epoch, part in zip(shown, parts):
        picture = part[9:-9, 9:-9]
        margin = part[:9]
        assert picture.shape == (20, 30)
        assert (picture == 10 * epoch).all()
        assert (margin == 255).all()


# ---- losses.png


@pytest.fixture
def figures(monkeypatch):
    """The figures that were saved, by the names of their files."""
    saved = {}

    def save_png(path, picture, mode="RGB"):
        saved[path.name] = picture

    monkeypatch.setattr(common, "save_png", save_png)
    return saved


def test_curves_are_the_losses_and_their_moving_mean(tmp_path, figures):
    """Of 7 epochs with 25 steps each, the mean is over 4 steps."""
    step = np.arange(1, 176)
    epoch = (step - 1) // 25 + 1
    values = np.random.default_rng(0).normal(size=(4, 175)).round(4)
    table = np.transpose([epoch, step, *values])
    np.savetxt(
        tmp_path / "losses.csv",
        table,
        fmt="%.6g",
        delimiter=",",
        header="epoch,step,loss_D,loss_G,D(x),D(G(z))",
        comments="",
    )
    common.save_losses(tmp_path, gan_mlp.CURVES, "a title")
    top, bottom = figures["losses.png"].axes
    assert top.get_title("left") == "a title"
    assert top.get_ylabel() == "loss"
    assert bottom.get_ylabel() == "output of D"
    # Of each loss two lines: every step, and the mean.
    pairs = [top.lines[:2], top.lines[2:], bottom.lines[:2], bottom.lines[2:]]
    labels = [mean.get_label() for _, mean in pairs]
    assert labels == ["loss_D", "loss_G", "D(x)", "D(G(z))"]
    for wanted, (raw, mean) in zip(values, pairs):
        np.testing.assert_allclose(raw.get_ydata(), wanted)
        # where epochs 1 and 7 end
        np.testing.assert_allclose(raw.get_xdata()[[24, 174]], [1, 7])
        means = [wanted[n : n + 4].mean() for n in range(172)]
        np.testing.assert_allclose(mean.get_ydata(), means)
        np.testing.assert_allclose(mean.get_xdata(), raw.get_xdata()[2:174])
        assert raw.get_alpha() < 0.5
        assert mean.get_alpha() is None


def test_a_few_spikes_do_not_flatten_the_curves(tmp_path, figures):
    values = np.random.default_rng(0).uniform(size=2000)
    values[[500, 1500]] = 1000
    lines = ["epoch,step,loss_D"]
    for step, value in enumerate(values, start=1):
        lines.append(f"1,{step},{value:.6g}")
    (tmp_path / "losses.csv").write_text("\n".join(lines) + "\n")
    common.save_losses(tmp_path, {"loss": ("loss_D",)}, "")
    low, high = figures["losses.png"].axes[0].get_ylim()
    assert -0.1 < low < 0.1
    assert 0.9 < high < 1.2


# ---- as files


def test_a_sheet_has_its_picture_dot_for_dot(tmp_path):
    picture = np.random.default_rng(0).integers(256, size=(90, 150), dtype=np.uint8)
    path = tmp_path / "sheet.png"
    common.save_sheet(path, picture, "title", ["one", "two"], ["a", "b", "c"])
    sheet = pixels(path)
    # Somewhere in the sheet stands the picture. Drawing may round by 1.
    windows = np.lib.stride_tricks.sliding_window_view(sheet, picture.shape)
    smallest = 255
    for row in windows:
        largest_differences = abs(row - picture).max(axis=(1, 2))
        smallest = min(smallest, largest_differences.min())
    assert smallest <= 1
    assert sheet.shape[0] > 90  # the labels
    assert sheet.shape[1] > 150


def test_labels_stand_beside_their_rows_and_above_their_columns(tmp_path, figures):
    picture = np.zeros((90, 150), dtype=np.uint8)
    path = tmp_path / "sheet.png"
    common.save_sheet(path, picture, "", ["one", "two"], ["a", "b", "c"])
    (axes,) = figures["sheet.png"].axes
    assert list(axes.get_xticks()) == [37.5, 112.5]
    assert list(axes.get_yticks()) == [15, 45, 75]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["one", "two"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a", "b", "c"]


def test_colours_stay_colours(tmp_path):
    images = torch.rand(4, 3, 8, 8) * 2 - 1
    picture = common.grid(images, columns=4, zoom=1)
    assert picture.shape == (10, 37, 3)
    wanted = ((images[1] + 1) * 127.5).round().permute(1, 2, 0)
    np.testing.assert_array_equal(picture[1:9, 10:18], wanted)
    common.save_sheet(tmp_path / "sheet.png", picture)
    assert matplotlib.image.imread(tmp_path / "sheet.png").shape[2] == 3


def test_what_is_outside_the_range_is_black_or_white():
    image = torch.tensor([[-9.0, -1], [1, 9]])
    two = image.expand(2, 1, 2, 2)  # make_grid gives a single image no frame
    picture = common.grid(two, zoom=1)
    assert picture[1:3, 1:3].tolist() == [[0, 0], [255, 255]]


def test_all_pictures_of_a_run_show_something(type_in, drawn):
    type_in(*small(["gan_mlp"], "--dry-run"))
    for name in FILES:
        path = Path("runs/gan_mlp-dry-run", name)
        if path.suffix == ".png":
            assert pixels(path).std() > 0, name
