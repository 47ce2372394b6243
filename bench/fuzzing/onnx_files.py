"""Damaged and devious ONNX encoders."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bench.fuzzing.damage import damage
from engines.engine import open_engine
from engines.event_files import EventFile
from engines.pretrained import pretrained_path
from engines.samples import sample_path

__all__ = ["OnnxFiles"]

_N_EVENTS = 16
_TRICKS_SHARE = 0.4


class OnnxFiles:
    """The pretrained encoder, damaged; and models that mean harm."""

    def prepare(self, folder: Path) -> None:
        """Read the whole encoder, and open it once so that the runtime is loaded."""
        self._folder, self._path = folder, folder / "d4.onnx"
        self._whole = pretrained_path("d4").read_bytes()
        self._model = onnx.load_model_from_string(self._whole)
        with EventFile(sample_path("sm_cocktail")) as file:
            self._events = file.read(0, _N_EVENTS)
        (folder / "secret.bin").write_bytes(np.ones((57, 4), np.float32).tobytes())
        self.open(pretrained_path("d4"))

    def make(self, rng: np.random.Generator) -> tuple[str, Path]:
        """Write a damaged encoder or a devious one."""
        if rng.random() < _TRICKS_SHARE:
            name = str(rng.choice(list(_TRICKS)))
            model = onnx.ModelProto()
            model.CopyFrom(self._model)
            _TRICKS[name](model, self._folder, rng)
            content = model.SerializeToString()
        else:
            name, content = damage(self._whole, rng)
        self._path.write_bytes(content)
        return name, self._path

    def open(self, path: Path) -> None:
        """Open the encoder and embed a few events."""
        with open_engine(path) as engine:
            engine.embed(self._events)


Trick = Callable[[onnx.ModelProto, Path, np.random.Generator], None]


def _tensor(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.TensorProto:
    tensors = model.graph.initializer
    return tensors[int(rng.integers(len(tensors)))]


def _node(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.NodeProto:
    return model.graph.node[int(rng.integers(len(model.graph.node)))]


def _replace(model: onnx.ModelProto, nodes: list[onnx.NodeProto], **constants: object) -> None:
    """Make a model of other nodes, from the input's name to the output's."""
    graph = model.graph
    name, dim = graph.output[0].name, graph.output[0].type.tensor_type.shape.dim[1].dim_value
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    constants["zero"] = np.zeros((57, dim), np.float32)
    graph.node.extend(
        [
            helper.make_node("Flatten", [graph.input[0].name], ["flat"], axis=1),
            helper.make_node("MatMul", ["flat", "zero"], ["embedded"]),
            helper.make_node("Add", ["embedded", "extra"], [name]),
        ]
    )
    for key, value in constants.items():
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), key))


def _external_data(model: onnx.ModelProto, folder: Path, rng: np.random.Generator) -> None:
    places = ("secret.bin", str(folder / "secret.bin"), "../../../../etc/passwd", "/dev/zero", "")
    tensor = _tensor(model, rng)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", str(rng.choice(places))
    for key in ("offset", "length"):
        if rng.random() < 0.5:
            entry = tensor.external_data.add()
            entry.key = key
            entry.value = str(rng.choice(np.array(["0", "-1", "99999999999", "x"])))


def _external_constant(model: onnx.ModelProto, _: Path, rng: np.random.Generator) -> None:
    tensor = TensorProto(data_type=TensorProto.FLOAT, dims=[57, 4], name="inner")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../secret.bin" if rng.random() < 0.5 else "secret.bin"
    _replace(model, [helper.make_node("Constant", [], ["extra"], value=tensor)])


def _dims(model: onnx.ModelProto, _: Path, rng: np.random.Generator) -> None:
    tensor = _tensor(model, rng)
    values = (-1, 0, 1, 2, 2**31, 2**40, 2**62, 2**63 - 1)
    tensor.dims[:] = [int(rng.choice(values)) for _ in range(int(rng.integers(1, 5)))]


def _data_type(model: onnx.ModelProto, _: Path, rng: np.random.Generator) -> None:
    _tensor(model, rng).data_type = int(rng.integers(-1, 30))


def _short_data(model: onnx.ModelProto, _: Path, rng: np.random.Generator) -> None:
    tensor = _tensor(model, rng)
    tensor.raw_data = tensor.raw_data[: int(rng.integers(len(tensor.raw_data) + 1))]


def _wild_weights(model: onnx.ModelProto, _: Path, rng: np.random.Generator) -> None:
    tensor = _tensor(model, rng)
    tensor.raw_data = rng.bytes(len(tensor.raw_data))


def _other_operator(model: onnx.ModelProto, _: Path, rng: np.random.Generator) -> None:
    kinds = ("Loop", "If", "Scan", "Reshape", "Gather", "Concat", "MatMul", "Nothing", "", "Cast")
    _node(model, rng).op_type = str(rng.choice(kinds))


def _other_domain(model: onnx.ModelProto, _: Path, rng: np.random.Generator) -> None:
    _node(model, rng).domain = str(rng.choice(["com.microsoft", "evil", "ai.onnx.ml"]))


def _cycle(model: onnx.ModelProto, _: Path, rng: np.random.Generator) -> None:
    node, other = _node(model, rng), _node(model, rng)
    if node.input:
        node.input[int(rng.integers(len(node.input)))] = other.output[0]


def _attributes(model: onnx.ModelProto, _: Path, rng: np.random.Generator) -> None:
    nodes = [node for node in model.graph.node if node.attribute]
    attribute = nodes[int(rng.integers(len(nodes)))].attribute[0]
    attribute.i = int(rng.integers(-(2**63), 2**63 - 1))
    attribute.ints[:] = [int(rng.choice([-1, 0, 2**40, 2**63 - 1])) for _ in attribute.ints]


def _huge_constant(model: onnx.ModelProto, _: Path, rng: np.random.Generator) -> None:
    size = int(10 ** rng.uniform(8, 17))
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["huge"]),
        helper.make_node("ReduceMax", ["huge"], ["extra"], keepdims=0),
    ]
    _replace(model, nodes, size=np.array([size], np.int64))


def _endless_loop(model: onnx.ModelProto, _: Path, __: np.random.Generator) -> None:
    """A loop of 2^62 turns, which the runtime would take to compute an embedding."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["goes_on"], ["still"]),
            helper.make_node("Add", ["carried", "carried"], ["doubled"]),
        ],
        "body",
        [
            value("turn", TensorProto.INT64, []),
            value("goes_on", TensorProto.BOOL, []),
            value("carried", TensorProto.FLOAT, []),
        ],
        [value("still", TensorProto.BOOL, []), value("doubled", TensorProto.FLOAT, [])],
    )
    loop = helper.make_node("Loop", ["turns", "true", "start"], ["extra"], body=body)
    constants = {"turns": np.int64(2**62), "true": np.bool_(1), "start": np.float32(0)}
    _replace(model, [loop], **constants)


def _deep(model: onnx.ModelProto, _: Path, rng: np.random.Generator) -> None:
    """Graphs within graphs."""
    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["r"], value_float=0.0)],
        "g",
        [],
        [helper.make_tensor_value_info("r", TensorProto.FLOAT, [])],
    )
    for _depth in range(int(rng.integers(1, 60))):
        node = helper.make_node("If", ["true"], ["r"], then_branch=inner, else_branch=inner)
        output = helper.make_tensor_value_info("r", TensorProto.FLOAT, [])
        if inner.ByteSize() > 2**20:
            break
        inner = helper.make_graph([node], "g", [], [output])
    last = helper.make_node("If", ["true"], ["extra"], then_branch=inner, else_branch=inner)
    _replace(model, [last], true=np.bool_(1))


def _interface(model: onnx.ModelProto, _: Path, rng: np.random.Generator) -> None:
    ends = model.graph.input if rng.random() < 0.5 else model.graph.output
    sizes = (-1, 0, 1, 5, 2**31, 2**62)
    dims = ends[0].type.tensor_type.shape.dim
    dims[int(rng.integers(len(dims)))].dim_value = int(rng.choice(sizes))
    if rng.random() < 0.2:
        del ends[:]


def _metadata(model: onnx.ModelProto, _: Path, rng: np.random.Generator) -> None:
    texts = (
        *("", "{", "[]", "null", "{}", '{"trained_on": 5}', '{"trained_on": [1]}', "[" * 100_000),
        *('{"trained_on": [], "dim": "4"}', '{"trained_on": [], "metrics": [1]}'),
        '{"trained_on": [{"name": 1, "content_id": [], "start": "a", "stop": null}]}',
    )
    helper.set_model_props(model, {"nplm_stream": texts[int(rng.integers(len(texts)))]})


def _versions(model: onnx.ModelProto, _: Path, rng: np.random.Generator) -> None:
    model.opset_import[0].version = int(rng.choice([-1, 0, 1, 9, 27, 99, 2**40]))
    model.ir_version = int(rng.choice([0, 3, 8, 99, 2**40]))


_TRICKS: dict[str, Trick] = {
    "external data": _external_data,
    "external constant": _external_constant,
    "wild dimensions": _dims,
    "another data type": _data_type,
    "short tensor": _short_data,
    "wild weights": _wild_weights,
    "another operator": _other_operator,
    "another domain": _other_domain,
    "cycle": _cycle,
    "wild attributes": _attributes,
    "huge constant": _huge_constant,
    "endless loop": _endless_loop,
    "graphs within graphs": _deep,
    "another interface": _interface,
    "odd metadata": _metadata,
    "odd versions": _versions,
}
