import pytest

from tests.nasray.latency.common import synthetic


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("NASRAY_CACHE", str(tmp_path))
    monkeypatch.setattr("nasray.latency.table.block_latency", synthetic)
    return tmp_path
