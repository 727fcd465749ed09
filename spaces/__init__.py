"""What can be built: search spaces."""

from nasray.spaces.architecture import Architecture
from nasray.spaces.base import Costs, Gene, Population, Space, row_keys
from nasray.spaces.budget import Budget, CostFunction
from nasray.spaces.errors import InfeasibleError, NasrayError
from nasray.spaces.fad import FADSpace
from nasray.spaces.layers import LayerTable
from nasray.spaces.msnas import MSNASSpace
from nasray.spaces.ofa_resnet import OFAResNetSpace
from nasray.spaces.restricted import Forbidden, RestrictedSpace, forbid_values
from nasray.spaces.shufflenet import ShuffleNetSpace
from nasray.spaces.staged import BasicSpace, BottleneckSpace, InvertedGatedSpace, InvertedSpace
from nasray.spaces.staged_layers import staged_layers
from nasray.spaces.tokens import Tokens

SPACES: dict[str, type[Space]] = {
    space.family: space
    for space in (
        BottleneckSpace,
        BasicSpace,
        InvertedSpace,
        InvertedGatedSpace,
        ShuffleNetSpace,
        OFAResNetSpace,
        FADSpace,
        MSNASSpace,
    )
}

__all__ = [
    "SPACES",
    "Architecture",
    "BasicSpace",
    "BottleneckSpace",
    "Budget",
    "CostFunction",
    "Costs",
    "FADSpace",
    "Forbidden",
    "Gene",
    "InfeasibleError",
    "InvertedGatedSpace",
    "InvertedSpace",
    "LayerTable",
    "MSNASSpace",
    "NasrayError",
    "OFAResNetSpace",
    "Population",
    "RestrictedSpace",
    "ShuffleNetSpace",
    "Space",
    "Tokens",
    "forbid_values",
    "row_keys",
    "staged_layers",
]
