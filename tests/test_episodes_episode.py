"""What every sampler keeps to."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot import EpisodeSampler, GroupedEpisodeSampler, VariedEpisodeSampler
from fewshot.episodes.episode import rows_by_class

LABELS = np.repeat(np.array([f"c{i:02d}" for i in range(24)]), np.arange(2, 26))[::-1]
GROUPS = np.array(["low" if label < "c12" else "high" for label in LABELS])
MAKERS = {
    "balanced": partial(EpisodeSampler, n_way=4, n_query=3, small_classes="drop"),
    "small": partial(EpisodeSampler, n_way=9, n_query=9, small_classes="use"),
    "weighted": partial(EpisodeSampler, n_way=3, n_query=1, small_classes="drop", class_weight={"c07": 5.0}),
    "varied": partial(VariedEpisodeSampler, max_way=12),
    "grouped": partial(GroupedEpisodeSampler, groups=GROUPS, sampler=partial(EpisodeSampler, n_way=5, n_query=1)),
    "grouped varied": partial(GroupedEpisodeSampler, groups=GROUPS, sampler=VariedEpisodeSampler, weight={"low": 2}),
}
sampler_kinds = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


@sampler_kinds
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**60), index=st.integers(0, 2**40))
def test_an_episode_is_sound(make, seed, index):
    sampler = make(LABELS, seed=seed)
    episode = sampler[index]
    assert len(set(episode.classes)) == episode.n_way
    assert set(episode.classes) <= set(sampler.classes)
    assert not set(episode.support) & set(episode.query)
    for rows, codes in ((episode.support, episode.support_labels), (episode.query, episode.query_labels)):
        assert len(set(rows)) == len(rows) == len(codes)
        np.testing.assert_array_equal(LABELS[rows], episode.classes[codes])
    assert np.bincount(episode.support_labels, minlength=episode.n_way).min() >= 1


def arrays(episode):
    return [getattr(episode, name).tolist() for name in ("classes", "support", "query", "query_labels")]


@sampler_kinds
def test_it_depends_on_seed_and_number_alone_however_many_draw(make):
    one, other = make(LABELS, seed=5), make(LABELS, seed=5)
    expected = [arrays(e) for e in itertools.islice(one, 40)]
    with ThreadPoolExecutor(4) as pool:
        drawn = dict(pool.map(lambda i: (i, arrays(other[i])), reversed(range(40))))
    assert [drawn[i] for i in range(40)] == expected
    assert arrays(make(LABELS, seed=6)[0]) != expected[0]
    with pytest.raises(IndexError, match="there is no episode -1"):
        one[-1]
    with pytest.raises(TypeError, match="the number of an episode is slice.*; between\\(\\) yields several"):
        one[0:3]


@sampler_kinds
@pytest.mark.parametrize(("start", "stop"), [(0, 150), (127, 300), (7, 7), (2**40, 2**40 + 3)])
def test_many_episodes_are_those_drawn_one_by_one(make, start, stop):
    sampler = make(LABELS, seed=2)
    many = list(sampler.between(start, stop))
    assert len(many) == stop - start
    for index, episode in zip(range(start, stop), many, strict=True):
        for name in ("classes", "support", "support_labels", "query", "query_labels"):
            one, other = getattr(episode, name), getattr(sampler[index], name)
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
    with pytest.raises(IndexError, match="there is no episode -1"):
        list(sampler.between(-1, 2))


@sampler_kinds
def test_its_protocol_tells_it_apart(make):
    assert make(LABELS, seed=5).protocol == make(LABELS, seed=5).protocol
    protocols = [m(LABELS, seed=5).protocol for m in MAKERS.values()]
    assert sum(make(LABELS, seed=5).protocol == p for p in protocols) == 1
    assert "classes, " in repr(make(LABELS))


def test_rows_of_each_label():
    assert {k: v.tolist() for k, v in rows_by_class(["b", "a", "b"]).items()} == {"a": [1], "b": [0, 2]}
    assert rows_by_class([]) == {}


@sampler_kinds
def test_a_sampler_gives_the_batches_of_a_data_loader(make):
    sampler = make(LABELS)
    rows = torch.arange(len(LABELS))
    batches = sampler.batches(4, start=3)
    for _ in range(2):  # each epoch the same
        loader = torch.utils.data.DataLoader(rows, batch_sampler=batches, generator=torch.Generator())
        assert len(loader) == 4
        for index, batch in enumerate(loader, 3):
            episode = sampler[index]
            assert batch[: len(episode.support)].tolist() == episode.support.tolist()
            assert batch[len(episode.support) :].tolist() == episode.query.tolist()
            assert len(episode) == len(batch)
    endless = torch.utils.data.DataLoader(rows, batch_sampler=sampler, generator=torch.Generator())
    assert [len(batch) for batch in itertools.islice(endless, 3)] == [len(sampler[i]) for i in range(3)]


@pytest.mark.slow
def test_a_loader_of_episodes_may_have_workers():
    sampler = EpisodeSampler(np.arange(40) % 4, n_way=2, n_query=2)
    rows = torch.arange(40)
    loader = torch.utils.data.DataLoader(
        rows,
        batch_sampler=sampler.batches(3),
        num_workers=1,
        multiprocessing_context="forkserver",
        generator=torch.Generator(),
    )
    assert [batch.tolist() for batch in loader] == [list(episode) for episode in sampler.between(0, 3)]


def test_no_episodes_are_no_batches():
    sampler = EpisodeSampler([0, 0, 1, 1], n_way=2, n_query=1)
    with pytest.raises(ValueError, match="n_episodes is 0; expected a whole number of at least 1"):
        sampler.batches(0)
    with pytest.raises(ValueError, match="start is -1"):
        sampler.batches(1, start=-1)
    assert repr(sampler.batches(2)).startswith("EpisodeBatches(EpisodeSampler(2 classes")
