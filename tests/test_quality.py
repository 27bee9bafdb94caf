"""Each of the numbers of benchmarks/quality.py against a case worked out by hand."""

import sys

import pytest
import torch
from conftest import HERE

sys.path.insert(0, str(HERE / "benchmarks"))
import quality


def test_frechet_distance_of_known_gaussians():
    # Points at +-1 on each axis have the mean 0 and, of 4 points, the covariance 2/3 I.
    cross = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    assert quality.frechet(cross, cross) == pytest.approx(0, abs=1e-9)
    # moved by (3, 4): the squared length of the way, 25
    assert quality.frechet(cross + torch.tensor([3.0, 4]), cross) == pytest.approx(25)
    # twice as wide: trace of (sqrt(8/3) - sqrt(2/3))^2 I, that is 2 * 2/3
    assert quality.frechet(2 * cross, cross) == pytest.approx(4 / 3)
    # covariances that do not commute: diag(1, 0) against its turn by 45 degrees. Their product has
    # the one eigenvalue 1/2, so the distance is 1 + 1 - 2 sqrt(1/2).
    line = torch.tensor([[1.0, 0], [-1, 0]]) / 2**0.5
    turned = torch.tensor([[1.0, 1], [-1, -1]]) / 2
    assert quality.frechet(line, turned) == pytest.approx(2 - 2**0.5)


def test_coverage_on_a_line():
    # With k = 1 the balls around 0, 1 and 10 reach as far as their nearest neighbour: 1, 1 and 9.
    real = torch.tensor([[0.0], [1.0], [10.0]])
    points = torch.tensor([[-0.5], [-1.5], [1.5], [3.0], [19.0], [19.5]])
    inside = [True, False, True, True, True, False]
    for point, expected in zip(points, inside):
        assert quality.coverage(point[None], real, k=1) == expected
    assert quality.coverage(points, real, k=1) == pytest.approx(4 / 6)


def test_effective_classes():
    assert quality.effective_classes(torch.arange(10).repeat(7)) == pytest.approx(10)
    assert quality.effective_classes(torch.full((50,), 3)) == pytest.approx(1)
    # half, a quarter, a quarter: entropy 1.5 ln 2
    assert quality.effective_classes(torch.tensor([0, 0, 5, 9])) == pytest.approx(2**1.5)


def test_collapse_and_noise_are_seen():
    """On features that are the pixels themselves: one image again and again has no recall."""
    torch.manual_seed(0)
    real = torch.randn(400, 8)
    assert quality.coverage(real, torch.randn(400, 8)) > 0.7
    collapsed = real[:1].repeat(400, 1)
    assert quality.coverage(collapsed, real) == 1  # precise,
    assert quality.coverage(real, collapsed) < 0.01  # and all the same
    assert quality.coverage(real + 20, real) == 0


def test_sharpness():
    assert quality.sharpness(torch.full((2, 1, 28, 28), 0.3)) == 0
    stripes = torch.tensor([-1.0, 1]).repeat(14).expand(2, 1, 28, 28)  # 2 across, nothing down
    assert quality.sharpness(stripes) == pytest.approx(2)


def test_stages():
    assert quality.stages(20) == [1, 2, 5, 10, 20]
    assert quality.stages(1) == [1]
    assert quality.stages(200) == [1, 2, 5, 10, 20, 50, 100, 150, 200]


def test_row_gives_the_spread_of_several_seeds():
    def cells(*found):
        row = quality.table_row("name", 20, "seeds", found).strip("| ").split(" | ")
        return dict(zip(["name", "epochs", "seeds", *quality.COLUMNS], row))

    assert cells({"FD": 10.04, "sharpness": 2.0})["FD"] == "10.0"
    two = cells({"FD": 10.0, "recall": 0.5}, {"FD": 12.0, "recall": 0.5})
    assert two["FD"] == "11.0 ± 1.4" and two["recall"] == "0.50 ± 0.00"  # of 10 and 12: sqrt(2)


def test_classifiers_differ():
    for second, count in (False, 128), (True, 256):
        net = quality.Classifier(second).eval()
        assert net.features(torch.zeros(2, 1, 28, 28)).shape == (2, count)
        assert net(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
