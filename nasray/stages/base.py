"""The contract of a stage, and where it stands in a run.

A stage is a function of the experiment and of the bytes of what it takes from earlier stages. It goes on from whatever
its folder holds, and is done when its own last file is there, which is renamed into place.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, cast

from nasray.architectures import ARCHITECTURES, named_architecture
from nasray.cluster import Resources, RunFolder
from nasray.cluster.leaders import Entry
from nasray.cluster.reading import shown
from nasray.filters.pruned import FILTER, PRUNED
from nasray.options import PartOptions
from nasray.parts import TO_BUDGET
from nasray.recipe import Recipe
from nasray.spaces import NasrayError
from nasray.spaces.errors import did_you_mean
from nasray.spaces.references import Output
from nasray.stages.outlook import Effort

SEARCH = "search"
"""The stage whose folder is the run's own, and whose best.json is the run's result."""


FILES: dict[Output, str] = {"filter": FILTER, "restriction": PRUNED}
"""What stages give that is one file of their folder."""
SUPERNET = "supernet"
"""What a stage that trains calls the supernet of the space."""
RANDOM = re.compile(r"random-([1-9][0-9]{0,3})")
"""What a stage that trains calls random architectures."""


@dataclass(frozen=True)
class Reference:
    """An option whose value names an earlier stage, or a file.

    Attributes:
        option: Dotted name of the option within the stage, such as `evaluator.supernet`.
        what: What is taken.
        value: Name of a stage, or path of a file.
        key: Key of the option in the experiment, such as `evaluator.supernet` where the stage takes the experiment's
            own evaluator, `stages.search.evaluator.supernet` where it has one of its own.
    """

    option: str
    what: Output
    value: str
    key: str

    def is_of_stage(self, stages: Container[str]) -> bool:
        """Return whether the value names one of the stages; what is trained may be the supernet itself."""
        return self.value in stages and not (self.what == "architectures" and self.value == SUPERNET)


@dataclass(frozen=True)
class Work:
    """What a stage is going to do.

    Attributes:
        trials: Trials on Ray Tune.
        trainings: Networks to train.
        text: Description of it.
        gib: Disk space in GiB; None where it is not known.
    """

    trials: int = 0
    trainings: int = 0
    text: str = ""
    gib: float | None = None


@dataclass(frozen=True)
class Site:
    """A stage's place in a run.

    Attributes:
        run: Folder of the run.
        name: Name of the stage.
        stages: Stages of the run by name, in their order.
        recipes: Resolved recipes by stage.
        resources: What trials need, and where everything runs.
        from_history: Whether Ray Tune's own state is left unread.
    """

    run: RunFolder
    name: str
    stages: Mapping[str, Stage]
    recipes: Mapping[str, Recipe] = field(default_factory=dict)
    resources: Resources = field(default_factory=Resources)
    from_history: bool = False

    @property
    def folder(self) -> Path:
        """Folder of the stage."""
        return self.run.path if self.name == SEARCH else self.run.path / self.name

    @property
    def recipe(self) -> Recipe:
        """Recipe of the stage."""
        return self.recipes[self.name]

    def resolved(self, options: PartOptions) -> PartOptions:
        """Return the options of a part with paths of files and runs in place of the stages that give them.

        Raises:
            NasrayError: if there is no such file or run yet.
        """
        find: dict[str, Callable[[str], Path]] = {
            "checkpoint": self.checkpoint,
            "history": self.history,
            **{what: functools.partial(self.file, what=what) for what in FILES},
        }
        paths = {
            reference.option: str(find[reference.what](reference.value).absolute())
            for reference in references(options)
            if reference.what in find
        }
        changed: PartOptions = dataclasses.replace(cast(Any, options), **paths)
        return changed

    def at(self, stage: str) -> Site:
        """Return the place of another stage."""
        return dataclasses.replace(self, name=stage)

    def checkpoint(self, value: str, architecture: str | None = None, repeat: int = 0) -> Path:
        """Return the checkpoint that an option names: of an earlier stage's training, or a file.

        Args:
            value: Name of a stage, or path of a file.
            architecture: Id of the architecture, where the stage trains several.
            repeat: Which of its trainings, where the stage repeats them.

        Raises:
            NasrayError: if there is none yet.
        """
        if value not in self.stages:
            path = Path(value)
            if not path.is_file():
                raise NasrayError(f"no file at {shown(path)}. Give the checkpoint of a training, or a stage")
            return path
        return self.stages[value].checkpoint(self.at(value), architecture, repeat)

    def history(self, value: str) -> Path:
        """Return the folder of the run whose history an option names: of an earlier stage's search, or of any.

        Args:
            value: Name of a stage, or path of a run.

        Raises:
            NasrayError: if there is none, or it is not finished.
        """
        path = self.at(value).folder if value in self.stages else Path(value)
        run = RunFolder.open(path)
        if not run.is_finished():
            raise NasrayError(f"the search of {shown(path)} is not finished. Finish it with `nasray resume` first")
        return run.path

    def file(self, value: str, what: Output) -> Path:
        """Return the file of a path filter or of a pruning that an option names: of an earlier stage, or any.

        Args:
            value: Name of a stage, or path of a file.
            what: "filter" or "restriction".

        Raises:
            NasrayError: if there is none yet.
        """
        path = self.at(value).folder / FILES[what] if value in self.stages else Path(value)
        if not path.is_file():
            hint = "`nasray resume` continues the run" if value in self.stages else "Give a stage, or check the path"
            raise NasrayError(f"no file at {shown(path)}. {hint}")
        return path

    def entries(self, stage: str) -> list[Entry]:
        """Return the architectures that an earlier stage found or trained, best first.

        Raises:
            NasrayError: if it is not done yet.
        """
        return self.stages[stage].entries(self.at(stage))


class Stage(ABC):
    """One step of a run. Its options are the keyword parameters of its constructor.

    Beside them a constructor may take `experiment`, what the user wrote, and `parts`, those of the experiment's search,
    which it makes no second time: nothing asks for them later.

    Attributes:
        gives: What later stages can take from it.
        leads: Whether it can be the run's stage `search`: its folder is then the run's, and its best.json too.
        is_of_supernet: Whether it trains the supernet of the space.
    """

    gives: ClassVar[frozenset[Output]] = frozenset()
    leads: ClassVar[bool] = False
    is_of_supernet: bool = False

    def part_options(self) -> dict[str, Any]:
        """Return the options of the parts that it uses, by section: dataclasses with `references`."""
        return {}

    def recipe_name(self) -> str | None:
        """Return the name of the recipe that it trains with; None if it trains nothing."""
        return None

    def own_recipe(self, recipe: Recipe) -> Recipe:
        """Return the recipe that it trains with as its options change it; files of other stages are not known yet.

        Raises:
            NasrayError: for options that do not go together with the recipe.
        """
        return recipe

    @abstractmethod
    def check(self, site: Site) -> None:
        """Find whatever a user can fix, before anything is written: open data, build networks.

        Raises:
            NasrayError: for the first mistake.
        """

    @abstractmethod
    def is_done(self, site: Site) -> bool:
        """Return whether nothing is left to do."""

    @abstractmethod
    def run(self, site: Site) -> dict[str, Any]:
        """Do what is left to do, and return the figures that stages.json keeps.

        Raises:
            NasrayError: for every mistake that the user can fix; the run can be continued after it.
        """

    @abstractmethod
    def plan(self, site: Site) -> Work:
        """Return what it is going to do."""

    def effort(self, site: Site) -> Effort | None:
        """Return how much it has to do and how much of that is done; None where it cannot say."""
        return None

    def checkpoint(self, site: Site, architecture: str | None, repeat: int) -> Path:
        """Return a checkpoint of its trainings; see `Site.checkpoint`.

        Raises:
            NasrayError: if it gives none, or has none yet.
        """
        raise NasrayError(f"stage {site.name} gives no checkpoint")

    def entries(self, site: Site) -> list[Entry]:
        """Return the architectures that it found or trained, best first.

        Raises:
            NasrayError: if it is not done yet.
        """
        return RunFolder(site.folder).read_entries()

    def digest(self, site: Site, what: Output) -> str:
        """Return the SHA-256 of what a later stage takes from it."""
        if what == "checkpoint":
            return file_digest(self.checkpoint(site, None, 0))
        if what == "history":
            return history_digest(site.folder)
        if what in FILES:
            return file_digest(site.file(site.name, what))
        return text_digest("\n".join(entry.architecture.text for entry in self.entries(site)))


def references(options: Any, prefix: str = "", *, keys: str = "") -> Iterator[Reference]:
    """Return the references among the options of a part, `prefix` before their names and `keys` before their keys."""
    for name, mark in options.references.items():
        value = getattr(options, name) or ()
        for item in (value,) if isinstance(value, str) else value:
            yield Reference(prefix + name, mark.what, item, keys + name)


def stage_references(name: str, own: PartOptions, stage: Stage) -> tuple[Reference, ...]:
    """Return the references among the options of a stage, its own ones and those of the parts that it uses."""
    place = f"stages.{name}."
    found = list(references(own, keys=place))
    for section, options in stage.part_options().items():
        is_own = getattr(own, section, None) is not None
        found += references(options, f"{section}.", keys=f"{place if is_own else ''}{section}.")
    return tuple(found)


def check_references(found: Mapping[str, Sequence[Reference]], stages: Mapping[str, Stage]) -> None:
    """Refuse references to stages that there are not, come later, or give something else.

    Args:
        found: References by stage.
        stages: Stages by name, in their order.

    Raises:
        NasrayError: naming the option.
    """
    for number, name in enumerate(stages):
        _check_references(name, found[name], list(stages)[:number], stages)


def _check_references(
    name: str, found: Sequence[Reference], earlier: Sequence[str], stages: Mapping[str, Stage]
) -> None:
    for reference in found:
        value, option = reference.value, reference.key
        if reference.is_of_stage(stages):
            if value not in earlier:
                raise NasrayError(f"{option}: stage {value!r} does not come before {name!r}. Move it, or name another")
            if reference.what not in stages[value].gives:
                fit = [stage for stage in earlier if reference.what in stages[stage].gives]
                raise NasrayError(
                    f"{option}: stage {value!r} gives {_listed(stages[value].gives)}; {option} needs "
                    f"{_article(reference.what)}: {' or '.join(fit) or 'a file'}"
                )
        elif reference.what == "architectures":
            if not is_architectures(value):
                known = [stage for stage in earlier if "architectures" in stages[stage].gives]
                raise NasrayError(
                    f"{option}: unknown stage or architecture {value!r}"
                    f"{did_you_mean(value, [*known, *ARCHITECTURES, SUPERNET])} It is {SUPERNET}, random-N, a stage "
                    f"({', '.join(known) or 'none before it'}), a name of `nasray list architectures`, one @budget, or "
                    "a path"
                )
        elif not is_path(value):
            raise NasrayError(
                f"{option}: unknown stage {value!r}{did_you_mean(value, earlier)} Before it there are: "
                f"{', '.join(earlier) or 'none'}. The path of a file also does"
            )


def is_architectures(value: str) -> bool:
    """Return whether a text can name architectures, as far as it is known without looking at files."""
    is_known = value == SUPERNET or RANDOM.fullmatch(value) is not None
    if match := TO_BUDGET.fullmatch(value):
        value = match[1]
    return is_known or named_architecture(value) is not None or is_path(value)


def is_path(value: str) -> bool:
    """Return whether the value of a reference is the path of a file rather than the name of a stage."""
    return "/" in value or bool(Path(value).suffix) or Path(value).exists()


def _article(what: str) -> str:
    return what if what == "architectures" else f"a {what}"


def _listed(names: frozenset[str]) -> str:
    return " and ".join(_article(name) for name in sorted(names)) or "nothing"


def text_digest(text: str) -> str:
    """Return the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def path_digest(path: Path) -> str:
    """Return the SHA-256 of what a path stands for: a file, or the history of a run's folder.

    Raises:
        NasrayError: if it cannot be read.
    """
    return history_digest(path) if path.is_dir() else file_digest(path)


def history_digest(folder: Path) -> str:
    """Return the SHA-256 of a run's history, part by part.

    Raises:
        NasrayError: if it cannot be read.
    """
    return text_digest("\n".join(file_digest(part) for part in sorted(RunFolder(folder).history.glob("*.parquet"))))


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file.

    Raises:
        NasrayError: if it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise NasrayError(f"cannot read {shown(path)}: {error.strerror}. Check that it is there") from error
