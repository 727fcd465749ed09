import importlib.util
import multiprocessing
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def one_thread():
    """Small maps are slower on several threads, the more so where test processes share the processors."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def exact_on_gpus():
    """Convolutions on GPUs in float32, as CPUs have them, not in TF32."""
    import torch

    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


@pytest.fixture(scope="session")
def host_waits():
    """The module benchmarks/host_waits.py, with its pretended device."""
    from torch.utils import backend_registration

    if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
        pytest.skip("this PyTorch cannot pretend a device")
    path = Path(__file__).parents[2] / "benchmarks" / "host_waits.py"
    spec = importlib.util.spec_from_file_location("host_waits", path)
    module = sys.modules["host_waits"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def in_a_child():
    """A function that runs another in a forked process, which nothing outlives, and returns what it returns."""
    import torch

    def run(function, *arguments):
        context = multiprocessing.get_context("fork")
        receiver, sender = context.Pipe(duplex=False)

        def work():
            torch.set_num_threads(1)  # those of the parent are not in the child
            sender.send(function(*arguments))

        child = context.Process(target=work)
        child.start()
        sender.close()
        try:
            return receiver.recv()
        except EOFError:
            pytest.fail("the child failed, see its standard error")
        finally:
            child.join()

    return run
