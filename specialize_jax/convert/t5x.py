"""Checkpoints of t5x -> our config and parameters, without t5x.

Two layouts on disk (both found by themselves):

    checkpoint_N/checkpoint                      msgpack of the whole tree, and beside it one zarr
    checkpoint_N/target.encoder...kernel/        folder for each large array (before Orbax)
    checkpoint_N/state/{_METADATA,manifest...}   Orbax: all arrays in one OCDBT store

and two forms of the tree, by the network that was trained:

| form      | network                | a kernel                                                   |
|-----------|------------------------|------------------------------------------------------------|
| unscanned | `examples/t5`          | `encoder/layers_3/attention/query/kernel`, [in, out]       |
| scanned   | `examples/scalable_t5` | `encoder/encoder/attention/query/kernel`, [in, L, H, Dh]:  |
|           |                        | layers on axis 1, heads apart                              |

Ours are stacked, [L, in, out]; there is no unstacked form of ours to convert between. A scanned
network has a relative bias per layer, [H, L, buckets]; ours, and the published T5s, share one: it
is taken where all layers have the same, and refused where they differ.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from specialize_jax.convert import families, t5x_store, vocabulary
from specialize_jax.convert.lazy import Index, Lazy, bounded, misfits
from specialize_jax.convert.remote import explained, reading
from specialize_jax.convert.t5_hf import T5
from specialize_jax.models.interface import Params
from specialize_jax.models.t5 import SIZES, T5Config

_STEP = re.compile(r"checkpoint_(\d+)")


class _Source(NamedTuple):
    """Where one of our parameters is found.

    Attributes:
      names: of their arrays.
      shape: that each has to have.
      take: `take(array, index)`, ours at `index` from one of them, or the layer of ours.
      layered: whether there is one of theirs for each layer of ours.
    """

    names: tuple[str, ...]
    shape: tuple[int, ...]
    take: Callable[[t5x_store.Array, Index], np.ndarray]
    layered: bool = False


def load_t5x(
    path: epath.PathLike,
    config: T5Config | str | None = None,
    *,
    dtype: Any = None,
    shardings: Any = None,
) -> tuple[T5Config, Params]:
    """Reads a checkpoint that t5x wrote for T5, T5 1.1 or Flan-T5.

    Args:
      path: the folder `checkpoint_N`, or a MODEL_DIR whose last checkpoint is meant; local or
        `gs://`.
      config: of the model, or the name of a size (`t5.SIZES`). None: shapes are taken from the
        arrays, the rest is T5 1.1's: no dropout, 1e-6 in the norms, and buckets to distance 128.
      dtype: of the parameters, "float32" or "bfloat16"; None keeps what is stored.
      shardings: a tree like the parameters; None gives numpy arrays in host memory.

    Returns:
      The config, ready for `t5.build`, and the parameters as a nested dict: numpy arrays, or
      `jax.Array`s laid out by `shardings`.

    Raises:
      FileNotFoundError: no checkpoint of either layout.
      ValueError: parameters are unknown, missing, or of the wrong shape, all of them named in one
        message; relative biases differ between layers; an unknown size; or a dtype that is not
        used here.
      OSError: a remote folder cannot be read.
    """
    found, params, _ = open_t5x(path, config)
    return found, params.astype(dtype).load(shardings)


def open_t5x(
    path: epath.PathLike,
    config: T5Config | str | None = None,
    *,
    vocab_size: int | None = None,
) -> tuple[T5Config, Lazy, int | None]:
    """Opens a checkpoint whose arrays are then read one by one; see `load_t5x`.

    Returns:
      The config, the parameters, and the step that the folder's name says.
    """
    given = _size(config) if isinstance(config, str) else config
    with explained(path):
        folder = _checkpoint(epath.Path(path))
        arrays = t5x_store.arrays(folder)
        stated = _infer(arrays, folder) if given is None else given
        stored = arrays.get("token_embedder/embedding")
        shaped: T5Config = vocabulary.as_stored(stated, None if stored is None else stored.shape)
        sources = _sources(shaped, arrays)
        _check_arrays(arrays, sources, folder)
    params = reading(folder, _lazy(arrays, sources, shaped))
    rows = stated.vocab_size if vocab_size is None else vocab_size
    fitted, params = vocabulary.fit(shaped, params, rows, folder)
    step = _STEP.fullmatch(folder.name)
    return fitted, params, int(step[1]) if step else None


def _size(name: str) -> T5Config:
    if name not in SIZES:
        raise ValueError(f"Expected size to be one of {', '.join(SIZES)}, got {name!r}.")
    return SIZES[name]


def _checkpoint(path: epath.Path) -> epath.Path:
    if t5x_store.is_checkpoint(path):
        return path
    steps = {}
    if path.is_dir():
        for child in path.iterdir():
            if (match := _STEP.fullmatch(child.name)) and t5x_store.is_checkpoint(child):
                steps[int(match[1])] = child
    if not steps:
        raise FileNotFoundError(
            "Expected a t5x checkpoint, a folder with the file `checkpoint` or the folder `state`, "
            f"or a folder of checkpoint_N; found none at {path}."
        )
    return steps[max(steps)]


def _scan_name(arrays: Mapping[str, t5x_store.Array]) -> str | None:
    """What the scanned layers are called under a stack; None where they are not scanned."""
    if any(name.startswith("encoder/encoder/") for name in arrays):
        return "{stack}/{stack}/"
    return "{stack}/layers/" if any(name.startswith("encoder/layers/") for name in arrays) else None


def _sources(config: T5Config, arrays: Mapping[str, t5x_store.Array]) -> dict[str, _Source]:
    shapes = families.shapes(T5, config)
    scanned = _scan_name(arrays)
    if scanned is None:
        return {path: _unscanned(path, shape) for path, shape in shapes.items()}
    return {path: _scanned(path, shape, config, arrays, scanned) for path, shape in shapes.items()}


def _unscanned(path: str, shape: tuple[int, ...]) -> _Source:
    if "/layers/" in path:
        names = tuple(path.replace("/layers/", f"/layers_{n}/") for n in range(shape[0]))
        return _Source(names, shape[1:], lambda array, index: array.read(index), layered=True)
    name = path.replace("logits_dense", "decoder/logits_dense")
    return _Source((name,), shape, lambda array, index: array.read(index))


def _scanned(
    path: str,
    shape: tuple[int, ...],
    config: T5Config,
    arrays: Mapping[str, t5x_store.Array],
    scanned: str,
) -> _Source:
    stack = path.split("/")[0]
    if path.endswith("rel_embedding"):
        depth = config.num_encoder_layers if stack == "encoder" else config.num_decoder_layers
        return _Source(
            (_bias_name(arrays, stack, scanned),),
            (shape[0], depth, shape[1]),
            lambda array, index: array.read((index[0], slice(0, 1), index[1]))[:, 0],
        )
    if "/layers/" not in path:
        return _unscanned(path, shape)
    name = path.replace(f"{stack}/layers/", scanned.format(stack=stack))
    joined, split = (_layers_second(form) for form in (shape, _split_heads(path, shape, config)))
    found = name in arrays and arrays[name].shape == joined
    return _Source((name,), joined if found else split, _moved_layers(shape))


def _bias_name(arrays: Mapping[str, t5x_store.Array], stack: str, scanned: str) -> str:
    above = scanned.format(stack=stack)
    older = f"{above}relative_posemb/rel_embedding"
    return older if older in arrays else f"{above}relpos_bias/rel_embedding"


def _split_heads(path: str, shape: tuple[int, ...], config: T5Config) -> tuple[int, ...]:
    """The shape with heads apart, where the parameter is a projection of an attention."""
    heads = (config.num_heads, config.d_kv)
    if path.endswith(("query/kernel", "key/kernel", "value/kernel")):
        return (*shape[:2], *heads)
    return (shape[0], *heads, shape[2]) if path.endswith("out/kernel") else shape


def _layers_second(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[1], shape[0], *shape[2:])


def _moved_layers(shape: tuple[int, ...]) -> Callable[[t5x_store.Array, Index], np.ndarray]:
    """Reads layers from axis 1, joins heads and their width, and cuts what is asked for."""

    def take(array: t5x_store.Array, index: Index) -> np.ndarray:
        every = (slice(None),) * (len(array.shape) - 2)
        layers = np.moveaxis(array.read((slice(None), index[0], *every)), 1, 0)
        return layers.reshape(-1, *shape[1:])[(slice(None), *index[1:])]

    return take


def _check_arrays(
    arrays: Mapping[str, t5x_store.Array], sources: Mapping[str, _Source], folder: epath.Path
) -> None:
    wanted = {name: source.shape for source in sources.values() for name in source.names}
    found = {name: array.shape for name, array in arrays.items()}
    if problems := misfits(found, wanted, "parameter"):
        raise ValueError(f"{folder} does not fit the config: {'; '.join(problems)}.")
    for stack in ("encoder", "decoder"):
        source = sources[f"{stack}/relpos_bias/rel_embedding"]
        bias = arrays[source.names[0]].read(())
        if bias.ndim == 3 and not np.array_equal(bias, np.broadcast_to(bias[:, :1], bias.shape)):
            raise ValueError(
                f"{folder}: the layers of the {stack} have relative biases of their own; our T5, "
                "as the published ones, has one that all layers share, so this network cannot be "
                "converted."
            )


def _infer(arrays: Mapping[str, t5x_store.Array], folder: epath.Path) -> T5Config:
    """The config that the arrays' shapes tell."""
    scanned = _scan_name(arrays)
    heads, *_, buckets = _shape(
        arrays,
        folder,
        "encoder/relpos_bias/rel_embedding"
        if scanned is None
        else _bias_name(arrays, "encoder", scanned),
    )
    first = "encoder/layers_0/" if scanned is None else scanned.format(stack="encoder")
    gated = f"{first}mlp/wi_0/kernel" in arrays
    wi = _shape(arrays, folder, f"{first}mlp/{'wi_0' if gated else 'wi'}/kernel")
    query = _shape(arrays, folder, f"{first}attention/query/kernel")
    joined = math.prod(query) // query[0] // (1 if scanned is None else query[1])
    vocab_size, d_model = _shape(arrays, folder, "token_embedder/embedding")
    tied = "decoder/logits_dense/kernel" not in arrays
    return T5Config(
        d_model=d_model,
        d_kv=joined // heads,
        d_ff=wi[-1],
        num_heads=heads,
        num_encoder_layers=_depth(arrays, folder, "encoder", "attention", scanned),
        num_decoder_layers=_depth(arrays, folder, "decoder", "self_attention", scanned),
        vocab_size=vocab_size,
        relative_buckets=buckets,
        activation="gated-gelu" if gated else "relu",
        tied_embeddings=tied,
        rescale_output=tied,
    )


def _shape(arrays: Mapping[str, t5x_store.Array], folder: epath.Path, name: str) -> tuple[int, ...]:
    if name not in arrays:
        some = ", ".join(sorted(arrays)[:3])
        raise ValueError(f"{folder} is not a T5 of t5x: it lacks {name}; it has {some}, ...")
    return arrays[name].shape


def _depth(
    arrays: Mapping[str, t5x_store.Array],
    folder: epath.Path,
    stack: str,
    part: str,
    scanned: str | None,
) -> int:
    if scanned is not None:
        return _shape(arrays, folder, f"{scanned.format(stack=stack)}{part}/query/kernel")[1]
    layers = (re.match(rf"{stack}/layers_(\d+)/", name) for name in arrays)
    return 1 + max((int(match[1]) for match in layers if match), default=-1)


def _lazy(
    arrays: Mapping[str, t5x_store.Array], sources: Mapping[str, _Source], config: T5Config
) -> Lazy:
    shapes = families.shapes(T5, config)

    def read(path: str, index: Index) -> np.ndarray:
        source, index = sources[path], bounded(index, shapes[path])
        if not source.layered:
            return source.take(arrays[source.names[0]], index)
        names = source.names[index[0]]
        return np.stack([source.take(arrays[name], index[1:]) for name in names])

    return Lazy(
        {
            path: jax.ShapeDtypeStruct(shapes[path], arrays[source.names[0]].dtype)
            for path, source in sources.items()
        },
        read,
    )
