from functools import partial

import numpy as np
import pytest

from fewshot import EpisodeSampler, GroupedEpisodeSampler

LABELS = np.repeat(np.arange(30), 4)
GROUPS = np.repeat(["a", "b", "c"], [20, 40, 60])
two_way = partial(EpisodeSampler, n_way=2, n_query=2)


def test_an_episode_stays_within_one_group():
    sampler = GroupedEpisodeSampler(LABELS, GROUPS, two_way)
    groups = []
    for i in range(300):
        episode = sampler[i]
        (group,) = set(GROUPS[np.concatenate([episode.support, episode.query])])
        groups.append(group)
    shares = [groups.count(g) / 300 for g in "abc"]
    np.testing.assert_allclose(shares, 1 / 3, atol=0.1)  # each group alike, however large


def test_groups_are_drawn_by_their_weights():
    sampler = GroupedEpisodeSampler(LABELS, GROUPS, two_way, weight={"a": 0, "c": 3})
    groups = [GROUPS[sampler[i].support[0]] for i in range(400)]
    assert groups.count("a") == 0
    assert groups.count("c") / 400 == pytest.approx(0.75, abs=0.07)


def test_groups_that_are_too_small_are_named_or_dropped():
    with pytest.raises(ValueError, match="the group a is too small: found 5 classes with the 3 rows"):
        GroupedEpisodeSampler(LABELS, GROUPS, partial(EpisodeSampler, n_way=8, n_query=2))
    sampler = GroupedEpisodeSampler(LABELS, GROUPS, partial(EpisodeSampler, n_way=8, n_query=2), small_groups="drop")
    assert sampler.classes.tolist() == list(range(5, 30))
    with pytest.raises(ValueError, match="no group is large enough"):
        GroupedEpisodeSampler(LABELS, GROUPS, partial(EpisodeSampler, n_way=50, n_query=2), small_groups="drop")


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"groups": GROUPS[:-1]}, "give one group for each row"),
        ({"groups": np.arange(120) % 2}, "the class 0 lies in 2 groups"),
        ({"weight": {"z": 1}}, "weight names 'z'; the groups are a, b, c"),
        ({"weight": {"a": np.nan}}, "weight must be finite"),
        ({"small_groups": "keep"}, "small_groups is 'keep'"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": "0"}, "seed is '0'; expected a whole number of at least 0"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        GroupedEpisodeSampler(LABELS, **{"groups": GROUPS, "sampler": two_way, **arguments})


def test_groups_within_groups_are_drawn_independently():
    """Two sources of two alphabets: each of the four comes as often."""
    labels = np.array([f"{s}{a}{c}" for s in "AB" for a in "xy" for c in range(4) for _ in range(3)])
    alphabets = np.array([label[:2] for label in labels])

    def within(some, seed):
        return GroupedEpisodeSampler(some, [label[:2] for label in some], two_way, seed=seed)

    sampler = GroupedEpisodeSampler(labels, [label[0] for label in labels], within)
    drawn = [alphabets[sampler[i].support[0]] for i in range(400)]
    for alphabet in ("Ax", "Ay", "Bx", "By"):
        assert drawn.count(alphabet) / 400 == pytest.approx(0.25, abs=0.08)


def test_a_mistake_is_not_taken_for_a_small_group():
    wrong = partial(EpisodeSampler, n_way=2, n_query=2, class_weight={"no class": 2})
    with pytest.raises(ValueError, match="class_weight names 'no class'"):
        GroupedEpisodeSampler(LABELS, GROUPS, wrong, small_groups="drop")


def test_classes_of_a_group_have_weights():
    sampler = GroupedEpisodeSampler(LABELS, GROUPS, two_way, class_weight={0: 0, 1: 0, 2: 0, 29: 50})
    seen = {label for i in range(200) for label in sampler[i].classes.tolist()}
    assert not seen & {0, 1, 2}
    assert {3, 4, 29} <= seen


def test_another_grouping_is_another_protocol():
    one, other = (GroupedEpisodeSampler(LABELS, groups, two_way) for groups in (GROUPS, GROUPS[::-1].copy()))
    assert one.protocol["n_groups"] == other.protocol["n_groups"]
    assert one.protocol != other.protocol
