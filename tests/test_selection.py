"""Masks, boxes and points to patch weights: properties over random queries."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssr_encoder.selection import MIN_COVERAGE, box_masks, patch_weights, point_masks

GRID = st.integers(2, 16)
UNIT = st.floats(0, 1, width=32)


@st.composite
def rectangles(draw, least: float = 0.0):
    x0, y0 = draw(st.floats(0, 1 - least)), draw(st.floats(0, 1 - least))
    x1, y1 = draw(st.floats(x0 + least, 1)), draw(st.floats(y0 + least, 1))
    return x0, y0, x1, y1


def cells(box, grid: int, slack: float = 0.0) -> torch.Tensor:
    """Which patches (grid, grid) a box overlaps, with ``slack`` around it."""
    edges = torch.arange(grid) / grid
    x0, y0, x1, y1 = box
    across = (edges + 1 / grid > x0 - slack) & (edges < x1 + slack)
    down = (edges + 1 / grid > y0 - slack) & (edges < y1 + slack)
    return down[:, None] & across[None]


def weights_of(mask: torch.Tensor, grid: int) -> torch.Tensor:
    weights = patch_weights(mask[None], grid)
    assert weights.shape == (1, 1 + grid * grid) and weights[0, 0] == 0, "the class token has seen the whole picture"
    assert (weights >= 0).all() and (weights <= 1).all()
    return weights[0, 1:].unflatten(0, (grid, grid))


@settings(deadline=None, max_examples=60)
@given(grid=GRID, height=st.integers(8, 80), width=st.integers(8, 80), seed=st.integers(0, 999), share=UNIT)
def test_any_mask(grid, height, width, seed, share):
    values = torch.rand(height, width, generator=torch.Generator().manual_seed(seed))
    mask = values * (values < share)
    weights = weights_of(mask, grid)
    assert bool(weights.any()) == bool(mask.any()), "only an empty mask selects nothing"
    rows = torch.nonzero(mask.amax(1))[:, 0]
    if len(rows):
        lines = torch.nonzero(weights.amax(1))[:, 0]
        assert lines[0] >= rows[0] * grid // height and lines[-1] <= (rows[-1] + 1) * grid / height


@settings(deadline=None, max_examples=60)
@given(grid=GRID, scale=st.integers(1, 6), box=rectangles(least=0.1))
def test_a_box_selects_its_patches_and_no_others(grid, scale, box):
    size = grid * scale
    mask = box_masks(torch.tensor([box]), size)[0]
    weights = weights_of(mask, grid)
    assert not weights[~cells(box, grid)].any()
    if mask.any():
        whole = torch.nn.functional.avg_pool2d(mask[None], scale)[0]
        expected = torch.where(whole >= whole.max().clamp(max=MIN_COVERAGE), whole, 0.0)
        torch.testing.assert_close(weights, expected)


@settings(deadline=None, max_examples=60)
@given(
    grid=st.integers(4, 16),
    scale=st.integers(2, 6),
    box=rectangles(least=0.3),
    left=st.booleans(),
    cut=st.integers(1, 3),
)
def test_disjoint_boxes_select_disjoint_patches(grid, scale, box, left, cut):
    """Two subjects of one class, side by side or one above the other, can be told apart."""
    line = cut / 4
    line = round(line * grid) / grid  # between two patches
    a, b = list(box), list(box)
    a[2 if left else 3], b[0 if left else 1] = line, line
    masks = box_masks(torch.tensor([a, b]), grid * scale)
    first, second = patch_weights(masks, grid)
    assert not (first * second).any()
    assert not masks.prod(0).any()


@settings(deadline=None, max_examples=80)
@given(
    grid=GRID, height=st.integers(8, 64), width=st.integers(8, 64), x=UNIT, y=UNIT, radius=st.floats(0, 0.5, width=32)
)
def test_a_point_selects_the_disc_around_it(grid, height, width, x, y, radius):
    mask = point_masks(torch.tensor([[x, y]]), radius, (height, width))[0]
    row, column = min(int(y * height), height - 1), min(int(x * width), width - 1)
    near = mask[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
    assert near.any(), "however small the radius, the point's own place is selected"
    rows, columns = torch.nonzero(mask, as_tuple=True)
    distance = torch.hypot(rows + 0.5 - y * height, columns + 0.5 - x * width)
    assert distance.max() <= max(radius * max(height, width), 0.5**0.5) + 1e-3
    far = (
        torch.hypot(torch.arange(height)[:, None] + 0.5 - y * height, torch.arange(width)[None] + 0.5 - x * width)
        <= radius * max(height, width) - 1e-3
    )
    assert mask[far].all()
    assert weights_of(mask, grid).any()


def test_a_box_in_numbers():
    mask = box_masks(torch.tensor([[0.25, 0.5, 0.75, 1.0]]), (4, 8))[0]
    expected = torch.zeros(4, 8)
    expected[2:, 2:6] = 1
    assert torch.equal(mask, expected)
    weights = weights_of(mask, 2)
    torch.testing.assert_close(weights, torch.tensor([[0.0, 0.0], [0.5, 0.5]]))


def test_discs_are_round_whatever_the_shape():
    mask = point_masks(torch.tensor([[0.5, 0.5]]), 0.1, (50, 200))[0]
    assert mask.amax(0).sum() == mask.amax(1).sum() == 40


@pytest.mark.parametrize("grid", [4, 16])
def test_a_tiny_subject_can_be_asked_for(grid):
    mask = torch.zeros(1000, 1000)
    mask[701, 402] = 1
    weights = weights_of(mask, grid)
    assert torch.nonzero(weights).tolist() == [[701 * grid // 1000, 402 * grid // 1000]]
    mask[:500, :500] = 1  # beside a large one, a stray pixel is an edge's
    assert not weights_of(mask, grid)[grid // 2 :].any()
