"""Latency measured on this device: of a whole network, and of layer blocks that predict a population's.

Reference: the block tables of Cai et al., "ProxylessNAS", ICLR 2019, Section 3.3, and Wu et al., "FBNet", CVPR 2019,
Section 3.2. Differs from both in: a table holds a coarse grid of channel counts and is interpolated between them.

A network's latency is predicted as the sum of its layer blocks, each measured alone: convolution, norm and activation
as they stand in the network, the pool of a projection, the addition of a shortcut, the means and products of a gate.
The sum knows nothing of caches that a neighbor has warmed or emptied, nor of an input whose size is odd (an entry of
stride 2 is measured from twice its output), nor of what another runtime than PyTorch makes of the blocks. Whole
networks tell what that amounts to, as one factor and the error that is left; `table_error` prints it.

On top of `nasray.runtimes` (what runs a network), from the bottom up: `setting` (what a latency depends on),
`steadiness` (whether the machine stayed the same), `measuring` (a network), `blocks` (a layer block), `table` (a
setting's blocks, and predictions), `correction` (of predictions by whole networks), `gpu` (a table of a GPU elsewhere),
`space` (the table as a search's cost), `architecture` (measured and predicted), `artifact` and `front` (what a run's
best are as deployed).
"""

from nasray.latency.architecture import measure_architecture, measure_detector, table_error
from nasray.latency.blocks import Block, block_latency
from nasray.latency.measuring import measure
from nasray.latency.setting import DTYPES, Setting
from nasray.latency.space import LatencyCost, space_table
from nasray.latency.table import CHANNELS, LatencyTable, cache_folder

__all__ = [
    "CHANNELS",
    "DTYPES",
    "Block",
    "LatencyCost",
    "LatencyTable",
    "Setting",
    "block_latency",
    "cache_folder",
    "measure",
    "measure_architecture",
    "measure_detector",
    "space_table",
    "table_error",
]
