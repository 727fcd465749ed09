import pytest


@pytest.fixture(scope="module")
def one_thread():
    """Small maps are slower on several threads, the more so where test processes share the processors."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
