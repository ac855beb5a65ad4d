"""A config survives JSON, names its differences, and can make nothing run."""

import contextlib
import json
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxclf.augment import Shift
from jaxclf.config import Config
from jaxclf.config_io import find_differences, flatten, from_json, read_config, to_json
from jaxclf.datasets import Idx, Mnist
from jaxclf.errors import UserError
from jaxclf.metrics import Accuracy, TopK
from jaxclf.models import Cnn
from jaxclf.optimizers import Adam, OneCycle, Sgd

NAMES = ["mnist_linear", "mnist_mlp", "mnist_mlp_wide", "mnist_mlp_deep", "mnist_cnn"]
CONFIG = Config(
    dataset=Idx("somewhere", validation=5),
    model=Cnn(features=(3, 4), dense=(), classes=7, padding=2),
    optimizer=Adam(learning_rate=0.1, clip_norm=2.0, schedule=OneCycle()),
    epochs=2,
    batch_size=8,
    metrics=(Accuracy(), TopK(3)),
    augment=(Shift(1), Shift(2)),
)


@pytest.mark.parametrize("config", [CONFIG, *map(read_config, NAMES)], ids=["one of everything", *NAMES])
def test_json_gives_back_an_equal_hashable_config(config):
    again = from_json(json.loads(json.dumps(to_json(config))))
    assert again == config
    assert hash(again) == hash(config)


@pytest.mark.parametrize(
    "path",
    [
        "os.system",
        "builtins.eval",
        "subprocess.Popen",
        "jaxclf.training.trainer.Trainer",
        "jaxclf.runs.directory.RunDirectory",
        "jaxclf.models.cnn.jnp.array",
        "jaxclf.models.cnn.Dropout",
        "jaxclf.metrics.mean",
        "jaxclf.metrics.Metric",
        "jaxclf.cli.data.main",
        "jaxclf.modelsx.Cnn",
        "Cnn",
        "",
        None,
        7,
        ["jaxclf.models.cnn.Cnn"],
    ],
)
def test_a_class_that_is_no_component_is_refused(path):
    with pytest.raises(UserError):
        from_json(to_json(CONFIG) | {"model": {"class": path, "features": [3]}})


def test_a_config_imports_nothing_it_names():
    with pytest.raises(UserError, match="--import antigravity"):
        from_json({"class": "antigravity.Fly"})
    with pytest.raises(UserError, match="has not been imported"):
        from_json({"class": "antigravity.Fly"}, imports=("antigravity",))
    assert "antigravity" not in sys.modules


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["class", "features", "x"]), inner),
    )
)
def test_any_json_is_a_value_or_a_user_error(data):
    with contextlib.suppress(UserError):
        from_json(data)


def test_unknown_and_missing_fields_are_refused():
    data = to_json(CONFIG)
    with pytest.raises(UserError, match="widht"):
        from_json(data | {"model": data["model"] | {"widht": 3}})
    del data["epochs"]
    with pytest.raises(UserError, match="epochs"):
        from_json(data)


def test_what_is_no_config_value_is_refused():
    with pytest.raises(UserError, match="function"):
        to_json(replace(CONFIG, augment=(lambda key, image: image,)))


def test_differences_name_fields_and_values():
    changed = replace(CONFIG, optimizer=Sgd(learning_rate=0.2), seed=3, augment=(Shift(1),))
    lines = find_differences(to_json(CONFIG), to_json(changed))
    assert "seed: 0 -> 3" in lines
    assert "optimizer.learning_rate: 0.1 -> 0.2" in lines
    assert 'optimizer.beta1: 0.9 -> "(absent)"' in lines
    assert 'augment.1.pixels: 2 -> "(absent)"' in lines
    assert find_differences(to_json(CONFIG), to_json(CONFIG)) == []


def test_flat_names_are_those_of_the_command_line():
    flat = flatten(to_json(CONFIG))
    assert flat["optimizer.schedule.peak_at"] == 0.3
    assert flat["model.features"] == [3, 4]
    assert flat["metrics.1.k"] == 3


@pytest.mark.parametrize(
    "change",
    [{"epochs": 0}, {"batch_size": -1}, {"ema_decay": 1.0}, {"seed": -1}, {"gradient_accumulation": 0}],
    ids=str,
)
def test_a_value_out_of_range_is_named(change):
    ((name, value),) = change.items()
    with pytest.raises(UserError, match=f"{name}={value}: expected"):
        replace(CONFIG, **change)


def test_a_config_file_of_ones_own(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("from jaxclf.config_io import read_config\nget_config = lambda: read_config('mnist_linear')\n")
    assert read_config(str(file)).dataset == Mnist(validation=0)


@pytest.mark.parametrize("content", ["x = 1", "def get_config(): return 3"])
def test_a_file_without_a_config_is_named(tmp_path, content):
    (tmp_path / "mine.py").write_text(content)
    with pytest.raises(UserError, match=r"mine\.py defines no get_config"):
        read_config(str(tmp_path / "mine.py"))


def test_a_config_file_may_define_components_and_import_its_neighbours(tmp_path):
    (tmp_path / "neighbour_of_mine.py").write_text("EPOCHS = 7\n")
    (tmp_path / "components_of_mine.py").write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass, replace\n"
        "from jaxclf.config_io import read_config\n"
        "from neighbour_of_mine import EPOCHS\n"
        "@dataclass(frozen=True)\nclass Twice:\n    factor: int = 2\n"
        "    def __call__(self, logits, labels): return logits[:, 0]\n"
        "def get_config(): return replace(read_config('mnist_linear'), loss=Twice(), epochs=EPOCHS)\n"
    )
    config = read_config(str(tmp_path / "components_of_mine.py"))
    assert (config.epochs, config.loss.factor) == (7, 2)
    # Once executed, the file is the module of its name, so its classes are found again.
    assert from_json(to_json(config), imports=("components_of_mine",)) == config


def test_a_mistake_in_a_config_file_names_its_line(tmp_path):
    (tmp_path / "wrong.py").write_text("from jaxclf.optimizers import Adam\nx = 1\nAdam()\n")
    with pytest.raises(UserError, match=r"wrong\.py: TypeError: .*learning_rate.*line 3"):
        read_config(str(tmp_path / "wrong.py"))


def test_an_unknown_config_lists_those_there_are():
    with pytest.raises(UserError, match="mnist_best, mnist_cnn, mnist_fast, mnist_linear"):
        read_config("mnist_cn")
