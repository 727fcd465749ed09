import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nasray.data.order import epoch_batches, evaluation_batches, seed_sequence


@given(st.integers(1, 60), st.integers(1, 16), st.integers(-5, 5), st.booleans())
def test_every_image_comes_once_and_batches_are_full(num_images, global_batch, seed, grouped):
    wide = np.arange(num_images) % 3 == 0 if grouped else None
    batches = epoch_batches(seed, 4, num_images, global_batch, wide)
    assert batches.shape == (-(-num_images // global_batch), global_batch)
    flat = batches.ravel()
    assert sorted(flat[:num_images]) == list(range(num_images))
    assert (flat[num_images:] == np.resize(flat[:num_images], len(flat))[num_images:]).all()


def test_batches_are_of_one_kind_but_for_the_rest():
    wide = np.arange(100) % 3 == 0
    kinds = wide[epoch_batches(0, 0, 100, 8, wide)]
    mixed = [not (row.all() or not row.any()) for row in kinds]
    assert not any(mixed[:-2])
    assert 0 < kinds[:6].mean() < 1  # wide and tall take turns


def test_epochs_and_seeds_differ_and_come_again():
    first = epoch_batches(0, 0, 50, 8)
    assert (first == epoch_batches(0, 0, 50, 8)).all()
    assert (first != epoch_batches(0, 1, 50, 8)).any()
    assert (first != epoch_batches(1, 0, 50, 8)).any()


def test_streams_of_different_purposes_and_places_differ():
    keys = [(0, 0), (1, 0), (0, 1), (0, 0, 0), (0, 0, 1), (0, 1, 0), (-1, 0)]
    states = {tuple(seed_sequence(key[0], *key[1:]).generate_state(2)) for key in keys}
    assert len(states) == len(keys)


@given(st.integers(0, 40), st.integers(1, 5), st.integers(1, 5), st.booleans())
def test_evaluation_takes_every_image_once_over_all_workers(num_images, batch_size, world, grouped):
    image_hw = np.stack([np.arange(num_images) % 7 + 1, np.full(num_images, 3)], axis=1)
    parts = [evaluation_batches(image_hw, batch_size, rank, world, grouped) for rank in range(world)]
    taken = [index for part in parts for batch in part for index in batch]
    assert sorted(taken) == list(range(num_images))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert all(0 < len(batch) <= batch_size for part in parts for batch in part)
