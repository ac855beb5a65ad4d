"""The large datasets: cartoons, which are drawn first."""

from support.datasets import check_splits

from jaxclf.datasets import Cartoons
from jaxclf.datasets.cartoons.characters import CHARACTERS


def test_the_splits_are_documented():
    splits = Cartoons().load()
    assert [len(split) for _, split in splits.items()] == [4_500, 300, 1_200]
    assert splits.train.class_names == tuple(sorted(character.name for character in CHARACTERS))
    assert splits.skipped == ()
    few = Cartoons(subset=0.045).load()
    assert abs(len(few.train) - 200) <= 5
    assert len(few.test) == 1_200


def test_splits_of_cartoons_are_well_formed_and_disjoint():
    check_splits(Cartoons())
