import pytest

from nasray.latency.correction import Correction
from tests.nasray.latency.common import synthetic


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("NASRAY_CACHE", str(tmp_path))
    monkeypatch.setattr("nasray.latency.table.block_latency", synthetic)
    monkeypatch.setattr("nasray.latency.correction.correction_of", lambda *_, **__: Correction(1.0, 0.0, 1.0, 12))
    return tmp_path
