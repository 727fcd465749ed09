"""Command lines that must be refused, generated from the options themselves: bad values by type, and bad files."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, get_origin, get_type_hints

from nasray.experiment import Experiment, ResourceOptions
from nasray.overrides import plain_type, section_type
from nasray.recipe import Recipe
from nasray.recipe_options import WorkerOptions

LONG, HUGE = "a" * 300, "9" * 5000
NUMBERS = ("abc", ".nan", ".inf", "-1", "1e999", "{a: 1}", "true", HUGE)
VALUES: dict[Any, tuple[str, ...]] = {
    int: (*NUMBERS, "3.5", str(2**63), "1e400"),
    float: NUMBERS,
    bool: ("maybe", "no", "1", "[]"),
    str: (LONG, "a\nb", "\udcff", ""),
    dict[str, Any]: ("nonsense", "[1]", "3", "true"),
    Any: ("nonsense", "[1]", "3", "true"),
}
LISTS = ("[[]]", "[abc]", "[.nan]", "[-1]", "{}", "[1, 2, 3, 4, 5, 6, 7, 8, 9, 0, -1]")


class Case(NamedTuple):
    """A command line that must be refused."""

    group: str
    arguments: tuple[str, ...]


def cases() -> list[Case]:
    """Return all of them, in a fixed order."""
    found = [
        *(Case("search: keys", ("search", "maedet-tiny", *option)) for option in bad_options(Experiment)),
        *(Case("train: keys", ("train", "shapes-detect-tiny", *option)) for option in bad_options(Recipe)),
        *(Case("resume: keys", ("resume", "run", *option)) for option in bad_options(ResourceOptions)),
        *(Case("resume: keys", ("resume", "trained", *option)) for option in bad_options(WorkerOptions)),
        *(Case("rank: keys", ("rank", "run", *option)) for option in bad_options(ResourceOptions)),
        *files(),
        *one_off_options(),
        *paths(),
        *shapes_of_command_lines(),
    ]
    return list(dict.fromkeys(found))


def bad_options(owner: type) -> Iterator[tuple[str, ...]]:
    """Every key of a configuration with values that it cannot have."""
    for key, kind in _keys(owner, ""):
        option = "--" + key.replace("_", "-")
        yield (option,) if kind is not bool else (option, "a", "b")
        for value in _bad_values(kind):
            yield option, value


def _keys(owner: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """The dotted keys of a configuration with their types; parts are the default ones."""
    for name, hint in get_type_hints(owner, include_extras=True).items():
        if get_origin(hint) is ClassVar:  # of a part's options
            continue
        section = section_type(hint, None)
        if section is not None:
            yield from _keys(section, f"{prefix}{name}.")
        else:
            yield prefix + name, plain_type(hint)


def _bad_values(kind: Any) -> tuple[str, ...]:
    if get_origin(kind) is Literal:
        return "nonsense", "", "[]"
    if get_origin(kind) is tuple:
        return LISTS
    if get_origin(kind) is dict:
        return VALUES[dict[str, Any]]
    return VALUES[kind]


# ---- files -------------------------------------------------------------------------------------------------------

YAML = {
    "binary": b"\x00\x01\x02\xff" * 64,
    "utf-16": "seed: 1\n".encode("utf-16"),
    "latin-1": "name: caf\xe9\n".encode("latin-1"),
    "truncated": b"a: [1, 2",
    "tabs": b"a:\n\t- 1\n",
    "list": b"- a\n- b\n",
    "word": b"hello",
    "empty": b"",
    "deep": b"a: " + b"[" * 5000 + b"]" * 5000,
    "bomb": b"a: &a [x,x,x,x,x,x,x,x,x]\n"
    + b"".join(
        b"%c: &%c [%s]\n" % (98 + i, 98 + i, b",".join([b"*%c" % (97 + i)] * 9)) for i in range(12)
    ),
    "loop": b"a: &a [*a]\n",
    "twice": b"seed: 1\nseed: 2\n",
    "unknown": b"sed: 1\n",
    "numbers": b"1: 2\n",
    "tag": b"a: !!python/object/apply:os.system [touch owned]\n",
    "huge": b"seed: " + b"9" * 5000 + b"\n",
    "nan": b"seed: .nan\n",
    "null": b"\xef\xbb\xbfname: \"a\\0b\"\n",
    "long": b"name: " + b"a" * 100_000 + b"\n",
}  # fmt: skip

_STAGE = {"kernel": 3, "width": 64, "bottleneck": 16, "depth": 1, "stride": 2}


def _spec(family: Any = "bottleneck", **changes: Any) -> bytes:
    stages = [dict(_STAGE) for _ in range(4)]
    stem = {"kernel": 3, "width": 32}
    for key, value in changes.items():
        where, _, last = key.partition("_")
        {"stem": stem, "stage": stages[1]}[where][last] = value
    return json.dumps({"family": family, "spec": {"stem": stem, "stages": stages}}).encode()


JSON = {
    "binary": YAML["binary"],
    "utf-16": '{"family": 1}'.encode("utf-16"),
    "latin-1": '{"family": "\xe9"}'.encode("latin-1"),
    "truncated": b'{"family": "bott',
    "deep": b"[" * 100_000,
    "deep-spec": b'{"family": "basic", "spec": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_001,
    "nan": b'{"family": "basic", "spec": NaN}',
    "twice": b'{"family": "basic", "family": "basic", "spec": {}}',
    "list": b"[]",
    "empty": b"",
    "digits": b'{"family": "basic", "spec": ' + b"9" * 5000 + b"}",
    "family": _spec(family=["a"]),
    "no-family": _spec(family="resnet"),
    **{f"width-{index}": _spec(stage_width=value) for index, value in enumerate([0, -8, 10**9, 2**70, 6.5, None])},
    **{f"depth-{index}": _spec(stage_depth=value) for index, value in enumerate([0, -1, 10**6, 2**70, True, [1]])},
    **{f"kernel-{index}": _spec(stage_kernel=value) for index, value in enumerate([2, 4, 0, 10**9, math.pi])},
    **{f"stride-{index}": _spec(stage_stride=value) for index, value in enumerate([0, 3, -2, "2"])},
    **{f"stem-{index}": _spec(stem_width=value) for index, value in enumerate([0, 10**9, {}])},
    "mid": _spec(stage_bottleneck=10**9),
    "blocks": json.dumps({
        "family": "shufflenet",
        "spec": {"stem": {"width": 8}, "shuffle": "interleave",
                 "stages": [{"width": width, "blocks": ["3x3"] * 1000} for width in (16, 32, 64, 96)]},
    }).encode(),
    "choices": json.dumps({
        "family": "shufflenet",
        "spec": {"stem": {"width": 8}, "shuffle": ["interleave"],
                 "stages": [{"width": width, "blocks": [["3x3"]]} for width in (16, 32, 64, 96)]},
    }).encode(),
}  # fmt: skip
BUILT = {"params": json.dumps({
    "family": "basic",
    "spec": {"stem": {"kernel": 3, "width": 16},
             "stages": [{"kernel": 3, "width": 16_384, "depth": 200, "stride": 2} for _ in range(4)]},
}).encode()}  # fmt: skip
"""Sound, and counted, but too large to be built."""
IMAGES = {"binary.png": YAML["binary"], "empty.jpg": b"", "text.png": b"hello", "torn.jpg": b"\xff\xd8\xff\xe0 torn"}
CHECKPOINTS = {"binary.pt": YAML["binary"], "empty.pt": b"", "text.pt": b"hello", "zip.pt": b"PK\x05\x06" + b"\0" * 18}


_RUN = "format: 1\nexperiment: {{name: mine, {}}}\nversions: {{}}\n"
RUNS = {
    "reference": _RUN.format("reference: resnet500"),
    "kernels": _RUN.format("space: {kernels: [2]}"),
    "seed": _RUN.format("seed: -1"),
    "key": _RUN.format("sed: 1"),
    "searcher": _RUN.format("searcher: {name: genetic}"),
    "twice": "format: 1\nformat: 1\n",
    "newer": "format: 99\n",
    "python": "format: 1\nspace: mine\n",
}
"""Runs whose description is one of nothing that can be made."""


def write_files(folder: Path) -> None:
    """Write all bad files of the cases into a folder."""
    for suffix, contents in ((".yaml", YAML), (".json", JSON | BUILT), ("", IMAGES), ("", CHECKPOINTS)):
        for name, content in contents.items():
            (folder / f"{name}{suffix}").write_bytes(content)
    (folder / "file").write_text("not a folder")
    (folder / "other").mkdir()
    (folder / "other" / "thing").write_text("mine")
    for name, content in RUNS.items():
        (folder / f"run-{name}").mkdir()
        (folder / f"run-{name}" / "experiment.yaml").write_text(content)


def files() -> Iterator[Case]:
    """Commands on files that are not what they take."""
    for name in YAML:
        for command in (("search",), ("train",), ("agreement",), ("data", "check"), ("train", "resnet18", "--recipe")):
            yield Case("files: YAML", (*command, f"{name}.yaml"))
        yield Case("files: YAML", ("data", "pack", f"{name}.yaml", "packed"))
        yield Case("files: YAML", ("evaluate", "trained", "--data", f"{name}.yaml"))
    for name in JSON:
        yield Case("files: JSON", ("cost", f"{name}.json"))
        yield Case("files: JSON", ("cost", f"{name}.json", "--detector", "fcos"))
        yield Case("files: JSON", ("latency", f"{name}.json", "--image-size", "64"))
        yield Case("files: JSON", ("export", f"{name}.json", "--to", "backbone.py"))
        yield Case("files: JSON", ("train", f"{name}.json"))
    for name in BUILT:
        yield Case("files: JSON", ("latency", f"{name}.json", "--image-size", "64"))
        yield Case("files: JSON", ("export", f"{name}.json", "--to", "backbone.py"))
    for name in RUNS:
        for command in (("resume",), ("report",), ("rank",), ("export", "--to", "backbone.py"), ("train",), ("cost",)):
            yield Case("files: runs", (*command, f"run-{name}"))
    for name in IMAGES:
        yield Case("files: images", ("predict", "trained", name, "--to", "boxes.png"))
    for name in CHECKPOINTS:
        yield Case("files: checkpoints", ("evaluate", name))
        yield Case("files: checkpoints", ("predict", name, "image.png"))
        yield Case("files: checkpoints", ("export", name, "--to", "model.pt2"))
        yield Case("files: checkpoints", ("latency", name))


# ---- options of one-off commands ------------------------------------------------------------------------------------

COUNTS = ("0", "-1", "abc", "1.5", "nan", HUGE, "1e3", "0x10", "")
REALS = ("nan", "inf", "-1", "abc", "1e999", "")
SIDES = (
    "0",
    "-1",
    "31",
    "64x",
    "x64",
    "64x0",
    "-64x64",
    "1000000000",
    "64x1000000000",
    HUGE,
    "64 64",
    "64X64",
    "nan",
    "",
)
URLS = (
    "head",
    "head:8265",
    "ftp://head:1",
    "http://",
    "http://:1",
    "http://head:99999999",
    "http://a b:1",
    "",
    LONG,
    "//x",
)
SEEDS = ("-1", str(2**63), "abc", "nan", "1.5", HUGE, "")
OPTIONS: dict[tuple[str, ...], dict[str, tuple[str, ...]]] = {
    ("cost", "resnet18"): {"--image-size": SIDES, "--classes": COUNTS, "--detector": ("fcoss", LONG, "")},
    ("latency", "basic-tiny"): {
        "--image-size": SIDES, "--batch-size": COUNTS, "--device": ("cuda", "gpu", ""), "--dtype": ("int8", ""),
        "--detector": ("fcoss",),
    },
    ("export", "basic-tiny"): {
        "--to": ("no/such.py", "other", "backbone.txt", "1.py", "class.py", "file/x.py", f"{LONG}.py", "", "."),
    },
    ("export", "trained"): {
        "--to": ("no/such.onnx", "other", "model.txt", "file/x.pt2", f"{LONG}.onnx", ""),
    },
    ("export", "trained", "--to", "model.onnx"): {"--image-size": SIDES},
    ("export", "trained", "--to", "model.pt2"): {"--image-size": SIDES},
    ("evaluate", "trained"): {
        "--batch-size": COUNTS, "--device": ("cuda", "tpu"), "--split": ("valid",), "--data": ("no.yaml", "file"),
        "--to": ("no/such.parquet", "other", "boxes.csv", "file/x.parquet", ""),
    },
    ("predict", "trained", "image.png"): {
        "--threshold": (*REALS, "1.5"), "--to": ("boxes.gif", "file/x.png", "file/x", ""), "--batch-size": COUNTS,
        "--device": ("cuda", "tpu"), "--orientation": ("sideways",), "--value-range": ("0",),
    },
    ("agreement", "maedet-tiny"): {
        "--architectures": (*COUNTS, "1"), "--repeats": COUNTS, "--workers": COUNTS, "--seed": SEEDS,
        "--min-gmacs": (*REALS, "1e6"), "--max-gmacs": REALS,
    },
    ("front", "run"): {
        "--budget.gmacs": REALS, "--budget.": ("3",), "--budgt.gmacs": ("3",), "--budget.price": ("3",),
        "--to": ("front.gif", "no/such.png", "file/x.png", ""),
    },
    ("compare", "run"): {
        "--random": COUNTS, "--repeats": COUNTS, "--seed": SEEDS, "--baselines": ("resnet500", ""),
        "--recipe": ("nope", "no.yaml", ""), "--to": ("front.gif", "no/such.png", "file/x.png", ""),
    },
    ("rank", "run"): {
        "--architectures": (*COUNTS, "2"), "--seed": SEEDS,
        "--recipe": ("nope", "no.yaml", "cpu-classify", ""),
    },
    ("report", "run"): {"--measured": ("nope", "file", "other", "trained", "run", "")},
    ("report", "trained"): {"--measured": ("run",)},
    ("data", "show", "shapes"): {
        "--images": (*COUNTS, "0"), "--seed": SEEDS, "--split": ("valid",), "--recipe": ("nope", "no.yaml", ""),
        "--to": ("file", "file/x", "no/such", "other"),
    },
    ("data", "shapes", "new"): {"--images": (*COUNTS, "1"), "--image-size": SIDES, "--seed": SEEDS},
    ("submit",): {"--address": URLS},
    ("job", "status", "job"): {"--address": URLS},
    ("train", "resnet18"): {
        "--schedule": ("5x", ""), "--detector": ("fcoss", ""), "--recipe": ("nope", "no.yaml", ""),
        "--folder": ("file", "file/x", "", f"runs/{LONG}"),
    },
    ("search", "maedet-tiny"): {"--folder": ("file", "file/x", "", "a\0b", "\udcff", LONG, "other")},
}  # fmt: skip


def one_off_options() -> Iterator[Case]:
    """Options of the commands themselves."""
    for command, options in OPTIONS.items():
        for option, values in options.items():
            for value in values:
                tail = ("--", "list", "spaces") if command == ("submit",) else ()
                yield Case(f"{command[0]}: options", (*command, option, value, *tail))
                if value and not tail:
                    yield Case(f"{command[0]}: options", (*command, f"{option}={value}"))
    yield Case("search: options", ("search", "maedet-tiny", "--resources.address", "127.0.0.1:1"))
    yield Case("search: options", ("search", "maedet-tiny", "--resources.address", "nowhere"))
    yield Case("search: options", ("search", "maedet-tiny", "--minimize", "score"))
    on_gpu = ("--evaluator.name", "sampled-entropy", "--evaluator.device", "cuda")
    yield Case("search: options", ("search", "maedet-tiny", *on_gpu))
    yield Case("search: options", ("search", "maedet-tiny", "--budget.gmacs", "1", "--budget.min-gmacs", "2"))
    yield Case("search: options", ("search", "detnas-300m", "--evaluator.supernet", "no.pt"))
    yield Case("agreement: options", ("agreement", "maedet-tiny", "--min-gmacs", "3", "--max-gmacs", "2"))
    yield Case("agreement: options", ("agreement", "detnas-300m"))
    yield Case("predict: options", ("predict", "trained", "image.png", "--value-range", "nan", "1"))
    yield Case("predict: options", ("predict", "trained", "image.png", "--value-range", "2", "1"))
    yield Case("predict: options", ("predict", "trained", "*.nothing"))
    yield Case("submit: options", ("submit", "--address", "http://127.0.0.1:1", "--", "serach", "maedet-m"))
    yield Case("submit: options", ("submit", "--address", "http://127.0.0.1:1", "--"))
    yield Case("submit: options", ("submit", "--address", "http://127.0.0.1:1", "--", "submit", "x"))
    yield Case("submit: options", ("submit", "--address", "http://127.0.0.1:1", "--", "list", "spaces"))
    yield Case("job: options", ("job", "logs", "job", "--address", "http://127.0.0.1:1"))


# ---- paths and shapes ------------------------------------------------------------------------------------------------

NOWHERE = ("nope", "no/such/thing", "", LONG, "x/" * 2100, "\udcff", "a\0b", "a\nb", "file/x")
POSITIONALS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("search",): ("/dev/zero", "/dev/null", "no.yaml", "other.yaml", "file", "other", "run"),
    ("resume",): ("file", "other"),
    ("report",): ("file", "other"),
    ("front",): ("file", "other", "trained"),
    ("compare",): ("file", "other", "trained", "run"),
    ("compare", "trained"): ("file", "other", "run", "trained"),
    ("rank",): ("file", "other", "trained", "run"),
    ("agreement",): ("no.yaml", "other"),
    ("train",): ("/dev/zero", "no.yaml", "other", "file"),
    ("evaluate",): ("/dev/zero", "file", "other", "run"),
    ("export", "--to", "model.onnx"): ("file", "other", "run", "basic-tiny"),
    ("export", "--to", "backbone.py"): ("file", "other"),
    ("cost",): ("/dev/zero", "file", "other", "resnet500"),
    ("latency",): ("file", "other", "resnet500"),
    ("predict", "trained"): ("other", "file", "no.png"),
    ("data", "check"): ("/dev/zero", "file", "other", "coco"),
    ("data", "show"): ("/dev/zero", "file", "other", "coco"),
}


def paths() -> Iterator[Case]:
    """Positional arguments that name nothing, or something else."""
    for command, values in POSITIONALS.items():
        for value in (*NOWHERE, *values):
            yield Case("paths", (*command, value))
    for value in NOWHERE:
        yield Case("paths", ("predict", value, "image.png"))
        yield Case("paths", ("data", "pack", value, "packed"))
        if value != "nope" and not value.startswith("no/"):
            yield Case("paths", ("data", "pack", "shapes", value))
            yield Case("paths", ("data", "shapes", value, "--images", "2"))


def shapes_of_command_lines() -> Iterator[Case]:
    """Commands that there are not, arguments that are missing, options that there are not or that come twice."""
    commands = ("search", "resume", "report", "front", "compare", "rank", "agreement", "train", "evaluate", "predict",
                "cost", "latency", "export", "submit", "job", "list", "data")  # fmt: skip
    yield Case("shapes", ())
    for line in ("serach maedet-m", "--folder x search maedet-m", "data", "data chek x", "list space", "list spaces x",
                 "job state x --address http://a:1", "cost resnet18 --json --json", "report run extra"):  # fmt: skip
        yield Case("shapes", tuple(line.split()))
    for command in commands:
        yield Case("shapes", (command,))
        yield Case("shapes", (command + "s",))
        yield Case("shapes", (command, "run", "--no-such-option", "1"))
        yield Case("shapes", (command, "run", "-x"))
        yield Case("shapes", (command, "run", "--json", "--json"))
        yield Case("shapes", (command, "run", "--json=1"))
