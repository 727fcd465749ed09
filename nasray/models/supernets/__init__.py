"""Supernets: every architecture of a space as a path through one network. PyTorch is imported when one is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from nasray.architectures import is_supernet, slots
from nasray.architectures.supernet import FAMILY
from nasray.models.supernets.sampling import DETNAS_WINDOWS, PATHS, PathSampler, UniformPaths, WindowedPaths
from nasray.options import options_of
from nasray.registry import SPACES, Registry
from nasray.spaces import Architecture, NasrayError, Space

if TYPE_CHECKING:
    from nasray.models.supernets.base import Supernet


_OPTIONS = "supernet"
"""Key of a spec for options of the supernet itself, beside those of its space."""


def supernet_architecture(space: Space, options: Mapping[str, Any] | None = None) -> Architecture:
    """Return what stands for the supernet of a space in checkpoints and trainings.

    Args:
        space: Space of the paths.
        options: Options of the supernet, such as `shared`; those that are defaults make no difference.

    Raises:
        NasrayError: for a space of whose family there is no supernet, or an option that it does not have.
    """
    _check_family(space.family)
    own = _other_than_default(space.family, options) if options else {}
    spec = {"space": space.family, **space.network_options()}
    return Architecture.create(FAMILY, {**spec, _OPTIONS: own} if own else spec)


def _other_than_default(family: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a supernet that are not defaults.

    Raises:
        NasrayError: for an option that it does not have; one that a function makes has none.
    """
    if not isinstance(SUPERNETS[family], type):
        raise NasrayError(f"the supernet of {family} has no options, got {', '.join(options)}. Leave them out")
    default, given = options_of(SUPERNETS, family), options_of(SUPERNETS, family, **options)
    return {name: value for name, value in vars(given).items() if value != getattr(default, name)}


def space_of_supernet(architecture: Architecture, **options: Any) -> Space:
    """Return the space whose supernet an architecture stands for; `options` are of the space and about costs.

    Raises:
        NasrayError: if it stands for none.
    """
    spec = dict(architecture.spec) if isinstance(architecture.spec, dict) else {}
    family = spec.pop("space", None)
    spec.pop(_OPTIONS, None)
    if architecture.family != FAMILY or family not in SUPERNETS:
        raise NasrayError(f"no supernet: {architecture.text}")
    kind: Callable[..., Space] = SPACES[family]
    try:
        return kind(**spec, **options)
    except (TypeError, ValueError) as error:
        raise NasrayError(f"no supernet can be built of this spec: {error}") from error


def build_supernet(space: Space, **options: Any) -> Supernet:
    """Return the supernet of a space, on the current default device, with fresh weights and no path set.

    Args:
        space: Space whose architectures it holds; its paths are without resolutions.
        options: Options of this kind of supernet, such as `momentum` of the batch norms.

    Raises:
        NasrayError: for a space of whose family there is no supernet.
    """
    _check_family(space.family)
    if space.resolutions:  # a network does not depend on them
        space = space_of_supernet(supernet_architecture(space))
    supernet: Supernet = SUPERNETS[space.family](space, **options)
    return supernet


def from_spec(*, in_channels: int | None = None, num_levels: int | None = None, **spec: Any) -> Supernet:
    """Build the supernet that the spec of an architecture stands for; as `build_supernet`.

    Args:
        in_channels: Channels of the levels, where it fills the slot of a head.
        num_levels: Number of levels, likewise.
        spec: Spec of the architecture.
    """
    of_head = {} if in_channels is None else {"in_channels": in_channels, "num_levels": num_levels}
    space, own = space_of_supernet(Architecture.create(FAMILY, spec)), spec.get(_OPTIONS)
    given = vars(options_of(SUPERNETS, space.family, **own)) if isinstance(own, Mapping) else {}
    return build_supernet(space, **{name: value for name, value in given.items() if name != SUPERNETS.tag}, **of_head)


def supernet_part(architecture: Architecture) -> Architecture | None:
    """Return the part of an architecture that stands for a supernet, in whatever slot; None if there is none."""
    return next((part for part in slots(architecture).values() if is_supernet(part)), None)


def _check_family(family: str) -> None:
    if family not in SUPERNETS:
        raise NasrayError(f"there is no supernet of space {family!r}; there are those of {', '.join(SUPERNETS)}")


SUPERNETS = Registry(
    "supernet",
    {
        "shufflenet": "nasray.models.supernets.shufflenet:ShuffleNetSupernet",
        "ofa-resnet": "nasray.models.supernets.ofa_resnet:OFAResNetSupernet",
        "fad": "nasray.models.supernets.fad:RelaxedHead",
        "msnas": "nasray.models.supernets.msnas:MSNASSupernet",
    },
    given=frozenset({"space", "in_channels", "num_levels"}),
    is_slow=True,
)
"""By family of the space; a new supernet is one line here."""

__all__ = [
    "DETNAS_WINDOWS",
    "FAMILY",
    "PATHS",
    "SUPERNETS",
    "PathSampler",
    "UniformPaths",
    "WindowedPaths",
    "build_supernet",
    "from_spec",
    "space_of_supernet",
    "supernet_architecture",
    "supernet_part",
]
