from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from . import common


def test_scalars_read_back_with_tensorboards_own_reader(tmp_path):
    common.uninterrupted(tmp_path / "run", evaluations=80)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert {
        "score/best",
        "score/batch_mean",
        "score/batch_spread",
        "best_cost/size",
        "population/diversity",
        "speed/evaluations_per_second",
    } <= tags
    best = events.Scalars("score/best")
    assert [point.step for point in best] == list(range(8, 81, 8))
    assert [point.value for point in best] == sorted(point.value for point in best)
    assert "_hparams_/session_start_info" in events.summary_metadata or events.Tags()["tensors"] is not None


def test_pictures_read_back(tmp_path):
    from nasray.cluster.tensorboard import EventWriter

    header = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + b"IHDR" + (7).to_bytes(4, "big") + (5).to_bytes(4, "big")
    writer = EventWriter(tmp_path)
    writer.image(3, "val/0", header)
    writer.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    (picture,) = events.Images("val/0")
    assert (picture.step, picture.width, picture.height) == (3, 7, 5)
    assert picture.encoded_image_string == header
