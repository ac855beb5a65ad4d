"""Audit of features: label errors, near-duplicates and outliers that are planted are found."""

import numpy as np
import pytest

from jaxclf.errors import UserError
from jaxclf.inference.features.audit import (
    COMPARED,
    Neighborhoods,
    compute_log_odds,
    find_duplicates,
    find_neighborhoods,
    inspect_features,
    weigh_votes,
)
from jaxclf.inference.features.neighbors import find_other_neighbors
from jaxclf.inference.features.selection import Labeled
from jaxclf.types import FileRecord

COPIES = {3: 40, 17: 88, 120: 60}  # of these images there are files with the same bytes
SIMILAR = {5: 41, 18: 90, 121: 61}  # and of these nearly equal ones
FLIPPED = (10, 45, 77, 110, 145)
ALONE = 150


def draw_data(random):
    """Features of three classes, with planted copies, wrong labels and an isolated point; and their files."""
    labels = np.arange(151) % 3
    features = 2 * random.normal(size=(3, 64))[labels] + random.normal(size=(151, 64))
    digests = [f"{i:064x}" for i in range(151)]
    for first, second in COPIES.items():
        features[second], labels[second], digests[second] = features[first], labels[first], digests[first]
    for first, second in SIMILAR.items():
        features[second] = features[first] + 0.05 * random.normal(size=64)
        labels[second] = labels[first]
    labels[list(FLIPPED)] = (labels[list(FLIPPED)] + 1) % 3
    features[ALONE] = 6 * random.normal(size=64)
    files = [FileRecord(f"{i:03}.png", str(labels[i]), ("train", "test")[i % 2], digests[i]) for i in range(151)]
    return Labeled(np.float32(features), labels, 3), files


@pytest.fixture(scope="module")
def audit_case():
    data, files = draw_data(np.random.default_rng(0))
    return data, files, inspect_features(data, files, folds=3, neighbors=5, similarity=0.95)


def test_planted_duplicates_are_found(audit_case):
    found = {(pair.first, pair.second): pair for pair in audit_case[2].duplicates}
    assert set(found) == {(min(pair), max(pair)) for pair in [*COPIES.items(), *SIMILAR.items()]}
    for pair in COPIES.items():
        assert found[min(pair), max(pair)][2:] == (1.0, True)
    assert not any(found[min(pair), max(pair)].identical for pair in SIMILAR.items())
    similarities = [pair.similarity for pair in audit_case[2].duplicates]
    assert similarities == sorted(similarities, reverse=True)


def test_wrong_labels_rank_first(audit_case):
    data, _, audit = audit_case
    ranks = np.argsort(audit.label_order)[list(FLIPPED)]
    assert ranks.max() < len(FLIPPED) + 1  # the isolated point may be among them
    assert set(FLIPPED) <= set(audit.label_order[: audit.error_count].tolist())
    assert audit.error_count <= len(FLIPPED) + 1
    probabilities = audit.labels.probabilities
    assert probabilities.shape == (151, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    right = np.ones(151, bool)
    right[[*FLIPPED, ALONE]] = False
    assert (probabilities.argmax(axis=1) == data.labels)[right].all()


def test_an_isolated_point_ranks_first(audit_case):
    _, _, audit = audit_case
    assert audit.outlier_order[0] == ALONE
    assert audit.outlier_scores.argmax() == ALONE
    assert audit.similarities[ALONE] < np.delete(audit.similarities, ALONE).min()


def test_the_nearest_image_is_another_one(audit_case):
    _, _, audit = audit_case
    assert all({audit.nearest[a], audit.nearest[b]} == {a, b} for a, b in [*COPIES.items(), *SIMILAR.items()])
    assert (audit.nearest != np.arange(151)).all()


def test_more_neighbors_change_outlier_scores_alone(random):
    data = Labeled(random.normal(size=(120, 6)).astype(np.float32), np.arange(120) % 3, 3)
    files = [FileRecord(f"{i:03d}.png", "a", "train", f"{i:064x}") for i in range(120)]
    few, many = (inspect_features(data, files, 4, neighbors, 0.5) for neighbors in (10, 90))
    np.testing.assert_array_equal(few.label_order, many.label_order)
    assert few.duplicates == many.duplicates
    assert (few.outlier_scores < many.outlier_scores).all()


def test_the_order_of_images_does_not_matter(audit_case, random):
    data, files, audit = audit_case
    order = random.permutation(151)
    moved = Labeled(data.features[order], data.labels[order], 3)
    again = inspect_features(moved, [files[i] for i in order], folds=3, neighbors=5, similarity=0.95)
    np.testing.assert_array_equal(again.labels.probabilities, audit.labels.probabilities[order])
    np.testing.assert_array_equal(again.outlier_scores, audit.outlier_scores[order])
    np.testing.assert_array_equal(order[again.nearest], audit.nearest[order])
    for name in ("label_order", "outlier_order"):
        np.testing.assert_array_equal(order[getattr(again, name)], getattr(audit, name))
    pairs = [pair._replace(first=int(order[pair.first]), second=int(order[pair.second])) for pair in again.duplicates]
    assert pairs == list(audit.duplicates)


def test_every_file_of_many_identical_ones_is_listed():
    count = 2 * COMPARED
    near = find_neighborhoods(np.ones((count, 4), np.float32), COMPARED)
    assert near.indices.shape == (count, COMPARED)
    pairs = find_duplicates(near, ["same"] * count, 0.9)
    assert {pair.second for pair in pairs if pair.first == 0} == set(range(1, count))
    assert all(pair.identical and pair.similarity == 1 for pair in pairs)


def test_no_example_is_its_own_neighbor(random):
    features = np.float32(random.normal(size=(300, 6)))  # more than one block
    features[100:200] = features[0]
    found, cosines = find_other_neighbors(features, 7)
    assert (found != np.arange(300)[:, None]).all()
    units = features / np.linalg.norm(features, axis=1)[:, None]
    exact = units @ units.T
    np.fill_diagonal(exact, -np.inf)
    np.testing.assert_allclose(cosines, -np.sort(-exact, axis=1)[:, :7], atol=1e-6)


def test_votes_are_weighted_by_similarity():
    near = Neighborhoods(np.array([[1, 2, 3]]), np.float32([[0.9, 0.9, 0.2]]))
    votes = weigh_votes(Labeled(np.zeros((4, 1), np.float32), np.array([0, 1, 2, 2]), 3), near)
    np.testing.assert_allclose(votes, [[0, 0.5, 0.5]], atol=1e-4)


def test_log_odds_are_those_of_the_label_and_the_best_other_class():
    probabilities = np.float32([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0, 1, 0]])
    found = compute_log_odds(probabilities, np.array([0, 2, 0]))
    np.testing.assert_allclose(found[:2], np.log([0.5 / 0.3, 0.2 / 0.5]), rtol=1e-6)
    assert np.isfinite(found).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"folds": 9}, "folds=9: expected 2 to 6, the number of images of the smallest class; change --folds"),
        ({"neighbors": 20}, "neighbors=20: expected 1 to 19, the number of other images"),
        ({"neighbors": 0}, "neighbors=0: expected 1 to 19"),
        ({"similarity": 1.5}, "similarity=1.5: expected above 0, at most 1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message, random):
    data = Labeled(np.float32(random.normal(size=(20, 4))), np.arange(20) % 3, 3)
    files = [FileRecord(f"{i}.png", "", "train", str(i)) for i in range(20)]
    with pytest.raises(UserError, match=message):
        inspect_features(data, files, **{"folds": 3, "neighbors": 5, "similarity": 0.9} | settings)
