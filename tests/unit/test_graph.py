"""The graph of a network has the operations it runs, under its modules' names, and what flows between them."""

import pytest
from support.components import MODELS

from jaxclf.models import Cnn, summarize
from jaxclf.models.graph import trace_graph

SHAPE = (28, 28, 1)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_every_layer_and_parameter_has_its_nodes_and_all_flows_from_the_image_to_the_output(model):
    nodes = {node.name: node for node in trace_graph(model, SHAPE)}
    names = [node.name for node in trace_graph(model, SHAPE)]
    assert len(names) == len(nodes)
    for layer in summarize(model, SHAPE).layers:
        if layer.kind == "Dropout":  # does nothing outside of training
            continue
        assert any(name.startswith(f"{type(model).__name__}/{layer.path}/") for name in names), layer.path
    for i, name in enumerate(names):
        assert set(nodes[name].inputs) <= set(names[:i])
    reached, waiting = set(), ["output"]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += nodes[name].inputs
    assert reached >= {node.name for node in nodes.values() if node.operation in ("parameter", "input")}


def test_the_documented_network():
    nodes = {node.name: node for node in trace_graph(Cnn((16, 36), (128,), 10, kernel_size=5), SHAPE)}
    convolution = nodes["Cnn/conv2/conv_general_dilated"]
    assert convolution.shape == (1, 14, 14, 36)
    assert convolution.inputs[1] == "Cnn/conv2/kernel"
    assert nodes["Cnn/conv2/kernel"].shape == (5, 5, 16, 36)
    assert convolution.inputs[0].startswith("Cnn/pool1/")
    assert nodes["output"].shape == (1, 10)
