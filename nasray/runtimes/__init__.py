"""Runtimes: what runs a network where it is deployed. Packages are imported when one is asked for, not before.

From the bottom up: `base` (the contract), `torch_runtimes` (PyTorch, eager and compiled), `onnx_file` (the file that
the others read, and its 8-bit twin), `onnx_runtime`, `openvino`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from nasray.registry import Registry

EAGER = "eager"
RUNTIMES = Registry(
    "runtime",
    {
        EAGER: "nasray.runtimes.torch_runtimes:Eager",
        "compile": "nasray.runtimes.torch_runtimes:Compiled",
        "onnxruntime": "nasray.runtimes.onnx_runtime:OnnxRuntime",
        "openvino": "nasray.runtimes.openvino:OpenVino",
    },
)
"""A new runtime is one line here, or an entry point of the group `nasray.runtimes`."""


def _check_name(name: str) -> str:
    RUNTIMES.check(name)
    return name


RuntimeName = Annotated[str, AfterValidator(_check_name)]
"""Name of a runtime in an experiment."""
