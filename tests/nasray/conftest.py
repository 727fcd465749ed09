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
