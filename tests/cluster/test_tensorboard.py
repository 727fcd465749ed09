import contextlib

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nasray.cluster import OrderedSearch, RunFolder
from nasray.cluster.recorder import Recorder

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


class KilledError(Exception):
    pass


def session(folder, evaluations, *, killed_at=None, when=None):
    """One session of a search of ten batches; it ends at batch `killed_at` `when` that is about to be done."""
    drive = common.load_drive()
    searcher = drive.Evolution(drive.Grid(), population_size=16, mutation=0.5, crossover=0.4, seed=5)
    search = OrderedSearch(searcher, evaluations=evaluations, batch_size=8, in_flight=2)
    recorder = Recorder(RunFolder(folder) if folder.exists() else RunFolder.create(folder, {}), search)
    recorder.catch_up()
    evaluate = drive.Slow(0.0, f"{folder}.log")
    while not search.is_finished:
        index, proposal = next(iter(search.pending.items()))
        for batch in search.receive(index, evaluate(proposal.genes)):
            for what, work in (
                ("write", lambda: recorder.write(batch, {"batch": batch.index})),  # noqa: B023
                ("tell", lambda: search.tell(batch)),  # noqa: B023
                ("show", lambda: recorder.show(batch)),  # noqa: B023
            ):
                if batch.index == killed_at and when == what:
                    raise KilledError
                work()
    recorder.finish()


@pytest.mark.parametrize("when", ["write", "tell", "show"])
@pytest.mark.parametrize("batches", [(0,), (1,), (9,), (3, 3), (2, 3, 4, 5)])
def test_every_batch_is_shown_once_whenever_sessions_are_killed(tmp_path, when, batches):
    folder = tmp_path / "run"
    for batch in batches:
        with contextlib.suppress(KilledError):
            session(folder, 80, killed_at=batch, when=when)
    session(folder, 80)
    session(folder, 80)  # nothing is left to do
    session(tmp_path / "whole", 80)
    for tag in ("score/best", "score/batch_mean", "score/batch_spread", "best_cost/size", "population/diversity"):
        assert common.points(folder, tag) == common.points(tmp_path / "whole", tag)
        assert [step for step, _ in common.points(folder, tag)] == list(range(8, 81, 8))


def test_what_was_taken_out_of_the_history_is_shown_anew(tmp_path):
    folder = tmp_path / "run"
    session(folder, 80)
    whole = common.points(folder)
    for path in sorted((folder / "history").iterdir())[6:]:
        path.unlink()
    session(folder, 80)
    assert common.points(folder) == whole


@pytest.mark.parametrize("harm", ["absent", "torn", "binary", "flipped"])
def test_points_that_were_lost_are_written_again(tmp_path, harm):
    folder = tmp_path / "run"
    with contextlib.suppress(KilledError):
        session(folder, 80, killed_at=6, when="write")
    (path,) = (folder / "tensorboard").iterdir()
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    if harm == "absent":
        path.unlink()
    else:
        path.write_bytes({"torn": whole[:-5], "binary": b"\xff" * len(whole), "flipped": bytes(flipped)}[harm])
    session(folder, 80)
    session(tmp_path / "whole", 80)
    assert common.points(folder) == common.points(tmp_path / "whole")
