"""Models of installed libraries as architectures: `torchvision:resnet50`, `timm:convnext_tiny`."""

from __future__ import annotations

import importlib
import re
from functools import partial
from typing import Any

from nasray.architectures.family import Family
from nasray.architectures.specs import check_keys
from nasray.configuration import install_command
from nasray.spaces import Architecture, NasrayError
from nasray.spaces.errors import did_you_mean
from nasray.spaces.ranges import shortened


def check_spec(spec: Any) -> dict[str, Any]:
    """Return the checked spec of a library's model: `name`.

    Raises:
        NasrayError: naming what is not understood. Whether there is such a model is found out when it is built.
    """
    check_keys(spec, "spec", needed=("name",))
    if not isinstance(spec["name"], str) or not re.fullmatch(r"[A-Za-z0-9_.-]{1,128}", spec["name"]):
        raise NasrayError(f"spec.name is the name of a model, such as resnet50; got {shortened(spec['name'])}")
    return dict(spec)


def find(name: str, library: str) -> Architecture | None:
    """Return the architecture of `library:MODEL`; None for any other name.

    Raises:
        NasrayError: if there is no such model, or the library is not installed.
    """
    begin, colon, model = name.partition(":")
    if not colon or begin != library:
        return None
    spec = check_spec({"name": model})
    check_model(library, model)
    return Architecture.create(library, spec)


def check_model(library: str, name: str) -> None:
    """Refuse a name that no model of an installed library has.

    Args:
        library: "torchvision" or "timm".
        name: Name of the model; of timm with or without the tag of its weights.

    Raises:
        NasrayError: naming the nearest model, or what to install.
    """
    module = import_library(library)
    known: list[str] = module.list_models(module=module) if library == "torchvision" else module.list_models()
    plain = name.partition(".")[0] if library == "timm" else name
    if plain not in known:
        raise NasrayError(
            f"{library} has no model {name!r}{did_you_mean(name, known)} Its list_models() names all {len(known):,}"
        )


def import_library(library: str) -> Any:
    """Return the module of a library that makes its models.

    Raises:
        NasrayError: if it is not installed.
    """
    try:
        return importlib.import_module("torchvision.models" if library == "torchvision" else library)
    except ImportError as error:
        raise NasrayError(
            f"models of {library} need it, and it cannot be imported ({error}). Install it: {install_command(library)}"
        ) from error


FAMILIES = {
    library: Family(
        slot="backbone",
        network=f"nasray.models.libraries:{library}_backbone",
        check=check_spec,
        find=partial(find, library=library),
        describe=f"any model of {library} that is installed, such as {library}:{example}",
    )
    for library, example in (("torchvision", "resnet50"), ("timm", "convnext_tiny"))
}
