"""A stranger's elastic supernet: stages share leading channels; a space, its networks, and how they are registered."""

from collections import OrderedDict

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from nasray.architectures import FAMILIES, Family
from nasray.models import supernets
from nasray.models.supernets.base import Supernet
from nasray.spaces import SPACES, Gene, Space

NUM_STAGES, WIDTHS = 4, (4, 6, 8)


class ToySpace(Space):
    """Widths of four stages; `stem` channels before them."""

    family = "toy"

    def __init__(self, stem=6, image_hw=(64, 64)):
        self.stem, self.image_hw = stem, image_hw
        self.genes = tuple(Gene(f"width{index}", WIDTHS) for index in range(NUM_STAGES))

    def network_options(self):
        return {"stem": self.stem}

    def to_architecture(self, row):
        architecture = super().to_architecture(row)
        return type(architecture).create(self.family, {"stem": self.stem, "widths": [int(value) for value in row]})

    def from_architecture(self, architecture):
        return np.array(self._own_spec(architecture)["widths"], dtype=np.int64)

    def cost(self, population):
        widths = np.concatenate([np.full((len(population), 1), self.stem), population], axis=1).astype(np.float64)
        params_m = 9 * (widths[:, :-1] * widths[:, 1:]).sum(axis=1) / 1e6
        return {"params_m": params_m, "gmacs": params_m * self.image_hw[0] * self.image_hw[1] / 1e3}


class Stage(nn.Module):
    """A 3x3 convolution of stride 2, its norm and a ReLU."""

    conv_class, norm_class = nn.Conv2d, nn.BatchNorm2d

    def __init__(self, width_in, width_out):
        super().__init__()
        self.conv = self.conv_class(width_in, width_out, 3, stride=2, padding=1, bias=False)
        self.norm = self.norm_class(width_out)

    def forward(self, x):
        return self.norm(self.conv(x)).relu()


class ToyNetwork(nn.Module):
    """A stem and four stages, C2 to C5."""

    stage_class = Stage

    def __init__(self, stem, widths):
        super().__init__()
        self.stem = Stage(3, stem)
        self.stages = nn.ModuleList(map(self.stage_class, [stem, *widths], widths))
        self.out_channels = list(widths)
        self.feature_info = [
            {"num_chs": width, "reduction": 2 ** (index + 2), "module": f"stages.{index}"}
            for index, width in enumerate(widths)
        ]

    def forward(self, images):
        x, maps = self.stem(images), OrderedDict()
        for index, stage in enumerate(self.stages):
            x = maps[f"c{index + 2}"] = stage(x)
        return maps


class ElasticConv2d(nn.Conv2d):
    """A convolution of which the leading `width` output channels run, on the leading input channels it is given."""

    width = None

    def forward(self, x):
        return F.conv2d(x, self.weight[: self.width, : x.shape[1]], None, self.stride, self.padding)


class ElasticBatchNorm2d(nn.BatchNorm2d):
    """A batch norm of whatever leading channels it is given."""

    def forward(self, x):
        num = x.shape[1]
        if self.training:
            self.num_batches_tracked.add_(1)
        return F.batch_norm(
            x, self.running_mean[:num], self.running_var[:num], self.weight[:num], self.bias[:num],
            self.training, self.momentum, self.eps,
        )  # fmt: skip

    def synchronized(self, group):
        raise NotImplementedError("it runs in one process")


class ElasticStage(Stage):
    """A stage of which leading channels run."""

    conv_class, norm_class = ElasticConv2d, ElasticBatchNorm2d


class ElasticNetwork(ToyNetwork):
    """The widest network, of which leading channels run."""

    stage_class = ElasticStage


class ToySupernet(Supernet):
    """Leading channels of the widest network; maps are padded with zeros to its width."""

    def __init__(self, space):
        super().__init__(space)
        self.network = ElasticNetwork(space.stem, [gene.values[-1] for gene in space.genes])
        self.feature_info = [
            info | {"module": f"network.{info['module']}"} for info in self.network.feature_info
        ]  # fmt: skip
        self.out_channels = self.network.out_channels

    def select(self, row):
        for stage, width in zip(self.network.stages, row.tolist(), strict=True):
            stage.conv.width = width

    def standalone(self, row):
        return ToyNetwork(self.space.stem, row.tolist())

    def path_state(self, row):
        with torch.device("meta"):
            small = self.standalone(row).state_dict()
        whole = self.network.state_dict(keep_vars=True)
        return {name: _leading(value, small[name].shape) for name, value in whole.items()}

    def forward(self, images):
        maps = self.network(images)
        return OrderedDict(
            (name, F.pad(x, (0, 0, 0, 0, 0, width - x.shape[1])))
            for (name, x), width in zip(maps.items(), self.out_channels, strict=True)
        )


def _leading(value, shape):
    return value if value.shape == shape else value[tuple(slice(size) for size in shape)]


def register(monkeypatch, supernet=ToySupernet):
    """Make the space, its networks and its supernet known by name, as entry points would."""
    network = f"{__name__}:{ToyNetwork.__name__}"
    monkeypatch.setitem(SPACES, ToySpace.family, ToySpace)
    monkeypatch.setitem(FAMILIES, ToySpace.family, Family(slot="backbone", network=network, check=dict))
    monkeypatch.setitem(supernets.SUPERNETS, ToySpace.family, supernet)
