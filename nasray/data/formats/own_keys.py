"""What the YAML files of data sets say of every format: which classes, and how images are read."""

from __future__ import annotations

from collections import Counter

from nasray.data.fields import FieldError, class_name
from nasray.data.image_files.pixels import Orientation, PixelRules
from nasray.spaces import NasrayError
from nasray.validation import checked

OWN_KEYS = ("classes", "orientation", "value_range")
"""Keys of nasray's own that files of every format may have."""


@checked
class OwnKeys:
    """What nasray's YAML files say of every format.

    Attributes:
        classes: Names in the order of labels; objects of others are left out. All by default.
        orientation: Whether images are annotated as a person sees them (turned as EXIF says), or as they are stored.
        value_range: Values of images with more than 8 bits that are black and white; as the files say by default.

    Raises:
        NasrayError: if there is no class in `classes`, or one twice, or the range is none.
    """

    classes: tuple[str, ...] | None = None
    orientation: Orientation = "upright"
    value_range: tuple[float, float] | None = None

    @property
    def pixel_rules(self) -> PixelRules:
        """How the images are read."""
        return PixelRules(self.orientation, self.value_range)

    def __post_init__(self) -> None:
        _ = self.pixel_rules  # which refuses a range that is none
        check_classes(self.classes)


def check_classes(classes: tuple[str, ...] | None, key: str = "classes") -> None:
    """Refuse names of classes that are no choice.

    Raises:
        NasrayError: if there is none, or one twice, or a name that is none.
    """
    if classes is None:
        return
    try:
        names = [class_name(name) for name in classes]
    except FieldError as error:
        raise NasrayError(f"{key}: each {error}") from None
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise NasrayError(f"{key}: {twice[0]!r} occurs twice; write every class once")
    if not names:
        raise NasrayError(f"{key}: none is chosen; name at least one, or leave `{key}` out for all")
