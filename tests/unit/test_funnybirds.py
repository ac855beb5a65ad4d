"""The dataset PartsMix and the scores of FunnyBirds."""

import numpy as np
import pytest

from jaxclf.datasets.parts import make_mixed_characters, sample_parts_images
from jaxclf.saliency.parts.funnybirds import (
    FUNNYBIRDS,
    choose_thresholds,
    find_lookalikes,
    find_sufficient_sets,
    get_parts,
    score_thresholds,
)
from jaxclf.saliency.parts.games import list_members
from jaxclf.saliency.parts.maps import draw_noise, draw_part_values, sum_over_parts
from jaxclf.saliency.parts.study import PartsStudy
from jaxclf.saliency.parts.truth import compute_truth

CHARACTERS = make_mixed_characters()
IMAGES = sample_parts_images(21, CHARACTERS)[1:]  # of equal logits the argmax is class 0, which none of these is


def make_truth(image):
    """The truth of a network that adds up, for each character, which of its parts are in an image."""
    worth = 1 + 0.01 * np.arange(len(image.parts))
    table = np.array([np.isin(image.parts, get_parts(character)) * worth for character in CHARACTERS])
    members = list_members(len(image.parts))
    of_subsets = members @ table.T

    def add_up(images):
        rest = np.repeat(of_subsets[-1:], len(images) - len(members), axis=0)
        return np.concatenate([of_subsets, rest])

    return compute_truth(image, add_up, [image.scene.background])


STUDY = PartsStudy(CHARACTERS, IMAGES, [make_truth(image) for image in IMAGES])


def test_any_two_characters_differ_in_two_parts():
    parts = [set(get_parts(character)) for character in CHARACTERS]
    assert len(parts) == 50
    assert max(len(a & b) for i, a in enumerate(parts) for b in parts[:i]) == 6 - 2  # the head is everyone's
    assert [character.name for character in CHARACTERS] == sorted(character.name for character in CHARACTERS)


def test_the_head_is_never_left_out():
    assert all("round_head" not in image.parts for image in IMAGES)
    assert all(len(image.parts) >= 4 for image in IMAGES)


def test_sufficient_sets_are_unique_and_smallest():
    image = IMAGES[0]
    others = [set(get_parts(each)) for label, each in enumerate(CHARACTERS) if label != image.label]
    sets = [
        {part for part, chosen in zip(image.parts, row, strict=True) if chosen}
        for row in find_sufficient_sets(image, CHARACTERS)
    ]
    assert sets
    for found in sets:
        assert not any(found <= other for other in others)
        assert all(any(found - {part} <= other for other in others) for part in found)


def test_lookalikes_share_two_parts_each():
    found = [find_lookalikes(image, CHARACTERS) for image in IMAGES]
    assert sum(each is not None for each in found) > 10
    for image, each in zip(IMAGES, found, strict=True):
        if each is not None:
            assert not (each.first_parts & each.second_parts).any()
            for label, parts in ((each.first, each.first_parts), (each.second, each.second_parts)):
                shared = set(get_parts(CHARACTERS[label])) & set(image.parts)
                assert shared == {part for part, of in zip(image.parts, parts, strict=True) if of}


def test_the_right_map_of_a_network_that_adds_up_parts_is_perfect():
    scores = STUDY.score_truths()[:, -len(FUNNYBIRDS) :]
    means = dict(zip(FUNNYBIRDS, np.nanmean(scores, axis=0), strict=True))
    assert means == pytest.approx(dict.fromkeys(FUNNYBIRDS, 1.0))


def test_an_empty_map_is_scored_for_every_image():
    nothing = [[np.zeros((64, 64)) for _ in IMAGES] for _ in STUDY.targets]
    scores = dict(zip(STUDY.scores, STUDY.score_maps(nothing).T, strict=True))
    for name in ("csdc", "pc", "dc"):
        assert not np.isnan(scores[name]).any()
    assert np.nanmean(scores["csdc"]) == 0
    assert np.nanmean(scores["ts"]) == 0


def test_a_map_that_does_not_depend_on_the_class_has_no_contrast():
    noise = [draw_noise(image, 0) for image in IMAGES]
    scores = dict(zip(STUDY.scores, STUDY.score_maps([noise] * 4).T, strict=True))
    assert np.nanmax(scores["ts"]) == 0


def test_thresholds_are_relative_to_absolute_values():
    """In the published code every part of a map with a negative sum is important."""
    image, truth = IMAGES[0], STUDY.truths[0]
    values = draw_part_values(image, np.arange(1.0, len(image.parts) + 1), background=-1000.0)
    assert values.sum() < 0
    scores = score_thresholds(image, sum_over_parts(image, values), truth, find_sufficient_sets(image, CHARACTERS))
    assert scores[0].max() == 0  # no part has 1 % of the absolute values


def test_a_threshold_is_not_chosen_on_the_images_it_scores():
    even, odd = np.zeros((4, 80)), np.zeros((4, 80))
    even[:, 3] = odd[:, 7] = 1  # each half has another best threshold
    scores = np.stack([even, odd] * 3)
    assert choose_thresholds(scores).max() == 0
