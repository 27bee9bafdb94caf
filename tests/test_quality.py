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
    # do not commute: diag(1, 0) and its turn by 45 degrees; their product has the eigenvalue 1/2
    line = torch.tensor([[1.0, 0], [-1, 0]]) / 2**0.5
    turned = torch.tensor([[1.0, 1], [-1, -1]]) / 2
    assert quality.frechet(line, turned) == pytest.approx(2 - 2**0.5)


def test_coverage():
    # With k = 1 the balls around 0, 1 and 10 reach as far as their nearest neighbour: 1, 1 and 9.
    real, points = torch.tensor([[0.0, 1, 10]]).T, torch.tensor([[-0.5, -1.5, 1.5, 3, 19, 19.5]]).T
    found = [quality.coverage(point[None], real, k=1) for point in points]
    assert found == [1, 0, 1, 1, 1, 0]
    assert quality.coverage(points, real, k=1) == pytest.approx(4 / 6)
    # one image again and again is precise, and has no recall
    real = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
    collapsed = real[:1].repeat(400, 1)
    assert quality.coverage(collapsed, real) == 1 and quality.coverage(real, collapsed) < 0.01


def test_classes_sharpness_and_spread():
    assert quality.effective_classes(torch.tensor([0, 0, 5, 9])) == pytest.approx(2**1.5)
    stripes = torch.tensor([-1.0, 1]).repeat(14).expand(2, 1, 28, 28)  # 2 across, nothing down
    assert quality.sharpness(stripes) == pytest.approx(2)
    found = [{"FD": 10.0, "recall": 0.5}, {"FD": 12.0, "recall": 0.5}]  # of 10 and 12: sqrt(2)
    assert "| 11.0 ± 1.4 |  |  | 0.50 ± 0.00 |" in quality.table_row("name", 20, "0 1", found)
