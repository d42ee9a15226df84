from fewshot.utils.streams import AUGMENT, DRAW, GROUP, episode_rng


def test_streams_of_a_seed_are_independent():
    draws = {episode_rng(0, i, p).integers(2**62) for i in range(50) for p in (DRAW, AUGMENT, GROUP)}
    assert len(draws) == 150


def test_a_stream_does_not_depend_on_those_before_it():
    assert episode_rng(3, 1000).integers(2**62) == episode_rng(3, 1000).integers(2**62)
    assert episode_rng(3, 1000).integers(2**62) != episode_rng(4, 1000).integers(2**62)
