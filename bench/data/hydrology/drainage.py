"""Where water runs: drainage of a terrain, and catchments that do not overlap."""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

from bench.errors import UserError

SMALLEST = 4
"""Cells of a catchment, at least."""
LARGEST = 8
"""Cells of the largest catchment, as a multiple of the smallest allowed."""
SEA = -1


def drainage(elevation: NDArray[np.float64], land: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Follow the water of every land cell to the sea or over the grid's edge.

    The sea takes the land cell by cell, always the lowest on its present shore; a cell drains to the neighbour (of eight)
    from which it was taken. So every cell has an outlet, also in a hollow, over its lowest rim (as in the priority flood of
    Barnes et al. 2014).

    Args:
        elevation: [H, W] metres.
        land: [H, W] bool.

    Returns:
        cells: flat indices of all land cells, each after the one it drains to.
        downstream: [H * W] flat index of the cell that a land cell drains to; `SEA` at an outlet and in the sea.
    """
    height, width = land.shape
    downstream = np.full(land.size, SEA)
    around = np.pad(~land, 1, constant_values=True)
    shore = land & np.any([around[r : r + height, c : c + width] for r in range(3) for c in range(3)], axis=0)
    queue = [(float(elevation.flat[cell]), int(cell), SEA) for cell in np.flatnonzero(shore)]
    heapq.heapify(queue)
    dry, cells = land.copy(), []
    while queue:
        _, cell, source = heapq.heappop(queue)
        row, column = divmod(cell, width)
        if not dry[row, column]:
            continue
        dry[row, column] = False
        cells.append(cell)
        downstream[cell] = source
        for next_row in range(max(row - 1, 0), min(row + 2, height)):
            for next_column in range(max(column - 1, 0), min(column + 2, width)):
                if dry[next_row, next_column]:
                    ground = float(elevation[next_row, next_column])
                    heapq.heappush(queue, (ground, next_row * width + next_column, cell))
    return np.array(cells), downstream


def upstream_sizes(cells: NDArray[np.int64], downstream: NDArray[np.int64]) -> NDArray[np.int64]:
    """[H * W]: number of cells whose water passes a land cell, itself included; 0 in the sea."""
    sizes = np.zeros(len(downstream), np.int64)
    sizes[cells] = 1
    for cell in cells[::-1]:
        if downstream[cell] != SEA:
            sizes[downstream[cell]] += sizes[cell]
    return sizes


def choose_catchments(
    cells: NDArray[np.int64], downstream: NDArray[np.int64], count: int, rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Choose `count` gauges at random so that no catchment holds another, as large as the land allows.

    Args:
        cells: land cells, each after the one it drains to, from `drainage`.
        downstream: from `drainage`.
        count: gauges.
        rng: decides which.

    Returns:
        the flat indices of each catchment's cells, ascending; catchments in the order of their outlets.

    Raises:
        UserError: there are not that many catchments of at least `SMALLEST` cells.
    """
    sizes = upstream_sizes(cells, downstream)
    # Larger ones come first more often, as the land is full of small ones: sampling by size, without replacement.
    ranked = cells[np.argsort(rng.standard_exponential(len(cells)) / sizes[cells])]
    most = 0
    for least in range(max(SMALLEST, len(cells) // count), SMALLEST - 1, -1):
        outlets = _disjoint(ranked[(sizes[ranked] >= least) & (sizes[ranked] <= LARGEST * least)], downstream)
        if len(outlets) >= count:
            return _members(sorted(outlets[:count]), cells, downstream)
        most = max(most, len(outlets))
    raise UserError(
        f"hydrology.catchments must be at most {most} on this grid, got {count}; use fewer, or a larger height and width"
    )


def _disjoint(candidates: NDArray[np.int64], downstream: NDArray[np.int64]) -> list[int]:
    """The first of `candidates`, and each later one that lies neither above nor below one already taken."""
    outlets: list[int] = []
    taken, below = set[int](), set[int]()
    for outlet in candidates.tolist():
        path, cell = [], outlet
        while cell != SEA and cell not in taken:
            path.append(cell)
            cell = int(downstream[cell])
        if cell == SEA and outlet not in below:
            outlets.append(outlet)
            taken.add(outlet)
            below.update(path)
    return outlets


def _members(outlets: list[int], cells: NDArray[np.int64], downstream: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The cells whose water passes each of `outlets`."""
    owner = np.full(len(downstream), SEA)
    owner[outlets] = outlets
    for cell in cells:
        if owner[cell] == SEA and downstream[cell] != SEA:
            owner[cell] = owner[downstream[cell]]
    return [np.flatnonzero(owner == outlet) for outlet in outlets]
