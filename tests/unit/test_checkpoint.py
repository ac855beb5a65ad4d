"""Checkpoints: what is restored is what was saved, bit for bit, or it is not restored."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf.errors import UserError
from jaxclf.io.manifest import MANIFEST, DamagedError
from jaxclf.training.checkpoint import Checkpoints, describe_arrays, score

FLIPS = 240  # over all files of a checkpoint


def state_of(step):
    """Some state, different at every step."""
    values = np.random.default_rng(step).standard_normal((40, 30), np.float32)
    return {"step": jnp.int32(step), "weights": jnp.asarray(values), "count": jnp.arange(step + 3)[:3]}


@pytest.fixture
def two(tmp_path):
    """A directory with the checkpoints of steps 10 and 20."""
    checkpoints = Checkpoints(tmp_path, about={"versions": {"jax": jax.__version__}})
    for step in (10, 20):
        checkpoints.save(step, state_of(step), {"accuracy": step / 100}, {"note": step})
    checkpoints.close()
    return tmp_path


def files(checkpoint):
    return sorted(path for path in checkpoint.rglob("*") if path.is_file())


def newest(directory):
    """The newest checkpoint that is whole, and its state."""
    checkpoints = Checkpoints(directory)
    saved = checkpoints.find_newest()
    state = checkpoints.restore(saved, state_of(0))
    checkpoints.close()
    return saved, state


def test_what_is_restored_is_what_was_saved(two):
    saved, state = newest(two)
    assert (saved.step, saved.metrics, saved.notes) == (20, {"accuracy": 0.2}, {"note": 20})
    jax.tree.map(np.testing.assert_array_equal, state, state_of(20))
    assert saved.tree == {"['count']": "int32[3]", "['step']": "int32[]", "['weights']": "float32[40, 30]"}
    assert json.loads((two / "20" / MANIFEST).read_text())["versions"] == {"jax": jax.__version__}


def test_no_flipped_bit_is_restored_silently(two, capfd, random):
    content = {path: path.read_bytes() for path in files(two / "20")}
    assert len(content) > 5
    sizes = np.array([len(each) for each in content.values()])
    paths = list(content)
    # Each file at least once; then by chance, a file as often as another.
    for i in range(FLIPS):
        path = paths[i] if i < len(paths) else paths[random.integers(len(paths))]
        if not content[path]:
            continue
        damaged = bytearray(content[path])
        damaged[random.integers(len(damaged))] ^= 1 << random.integers(8)
        path.write_bytes(damaged)
        assert Checkpoints(two).find_newest().step == 10
        assert path.relative_to(two).as_posix() in capfd.readouterr().err
        if i < len(paths):
            jax.tree.map(np.testing.assert_array_equal, newest(two)[1], state_of(10))
        path.write_bytes(content[path])
    assert sizes.sum() > 4_800  # the weights are among them
    assert newest(two)[0].step == 20


@pytest.mark.parametrize("damage", ["cut", "removed", "emptied", "added", "longer"])
def test_other_damage_is_named(damage, two, capfd):
    path = max(files(two / "20" / "state"), key=lambda path: path.stat().st_size)
    match damage:
        case "cut":
            path.write_bytes(path.read_bytes()[:-1])
        case "removed":
            path.unlink()
        case "emptied":
            path.write_bytes(b"")
        case "longer":
            path.write_bytes(path.read_bytes() + b"\0")
        case "added":
            path = path.with_name("more")
            path.write_bytes(b"x")
    assert newest(two)[0].step == 10
    assert path.relative_to(two).as_posix() in capfd.readouterr().err


def test_where_none_is_whole_it_says_so(two):
    for step in ("10", "20"):
        (files(two / step / "state")[0]).unlink()
    with pytest.raises(UserError, match=r"all checkpoints in .* are damaged") as error:
        Checkpoints(two).find("last")
    assert {item.split("/")[0] for item in error.value.items} == {"10", "20"}


def test_a_damaged_checkpoint_that_is_named_is_not_passed_over(two):
    files(two / "20" / "state")[0].unlink()
    for which in ("20", "best"):
        with pytest.raises(DamagedError, match="20 is damaged"):
            Checkpoints(two).find(which)
    assert Checkpoints(two).find("10").step == 10


def test_a_checkpoint_without_a_manifest_does_not_count(two):
    (two / "20" / MANIFEST).unlink()
    assert Checkpoints(two).find("last").step == 10
    checkpoints = Checkpoints(two, writing=True)
    assert not (two / "20").exists()
    checkpoints.close()


def test_the_best_outlives_later_checkpoints(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step, accuracy in enumerate([0.5, 0.9, 0.6, 0.7, 0.8], start=1):
        checkpoints.save(step, state_of(step), {"accuracy": accuracy}, {})
    checkpoints.close()
    again = Checkpoints(tmp_path)
    assert [saved.step for saved in again.saved] == [2, 4, 5]
    assert (again.find("best").step, again.find("last").step) == (2, 5)
    for step in (6, 7):
        again.save(step, state_of(step), {"accuracy": 0.1}, {})
    again.close()
    assert [saved.step for saved in Checkpoints(tmp_path).saved] == [2, 6, 7]


def test_a_loss_that_is_not_finite_is_the_worst(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step, loss in enumerate([np.nan, np.inf, 0.5, 0.7], start=1):
        checkpoints.save(step, state_of(step), {"loss": loss}, {})
    checkpoints.close()
    assert Checkpoints(tmp_path).find("best").step == 3
    assert score({"loss": np.nan}) < score({"loss": 0.5})


def test_what_lies_ahead_of_where_a_run_goes_on_is_removed(two):
    """Of two checkpoints the newer is damaged; the run goes on from the older, and passes it."""
    files(two / "20" / "state")[0].unlink()
    checkpoints = Checkpoints(two, writing=True)
    assert checkpoints.find_newest().step == 10
    checkpoints.save(15, state_of(15), {}, {})
    checkpoints.wait()
    assert [path.name for path in sorted(two.iterdir())] == ["10", "15"]
    checkpoints.close()


def test_a_checkpoint_of_the_same_step_is_replaced(two):
    checkpoints = Checkpoints(two, writing=True)
    checkpoints.save(20, state_of(21), {}, {"note": "again"})
    checkpoints.close()
    saved, state = newest(two)
    assert saved.notes == {"note": "again"}
    jax.tree.map(np.testing.assert_array_equal, state, state_of(21))


@pytest.mark.parametrize(
    ("left", "step"),
    [
        ({"20": ".20.partial"}, 20),  # whole, and about to take its name
        ({"20": ".20.replaced"}, 20),  # about to be replaced
        ({"20": ".30.replaced", "10": "30"}, 30),  # has been replaced
    ],
)
def test_what_was_about_to_get_its_name_gets_it(left, step, two):
    for name, new in left.items():
        (two / name).rename(two / new)
    Checkpoints(two).close()  # a reader changes nothing
    assert {path.name for path in two.iterdir()} >= set(left.values())
    Checkpoints(two, writing=True).close()
    assert [path.name for path in sorted(two.iterdir())][-1] == str(step)
    assert not any(path.name.startswith(".") for path in two.iterdir())


def test_only_the_run_itself_removes_what_an_interrupted_save_left(tmp_path):
    leftover = tmp_path / ".7.partial"
    (leftover / "state.orbax-checkpoint-tmp").mkdir(parents=True)
    Checkpoints(tmp_path).close()
    assert leftover.exists()
    Checkpoints(tmp_path, writing=True).close()
    assert not leftover.exists()


def test_places_name_every_array():
    assert describe_arrays({"a": [np.zeros((2, 3), np.float32)]}) == {"['a'][0]": "float32[2, 3]"}
