"""Folders of Hugging Face (config.json and safetensors) <-> our config and parameters.

Tensors are read and written one by one: host memory holds one at a time beside the result, and
with shardings a process reads only what its devices hold.
"""

from typing import Any

from etils import epath

from specialize_jax.convert.hf_reading import open_hf, prefix_of
from specialize_jax.convert.hf_writing import write_hf
from specialize_jax.convert.lazy import of_params
from specialize_jax.models.interface import Params


def load_hf(
    path: epath.PathLike,
    *,
    dtype: Any = None,
    shardings: Any = None,
    vocab_size: int | None = None,
) -> tuple[Any, Params]:
    """Reads a T5, Flan-T5, mT5 or GPT-2 folder.

    Args:
      path: a folder, local or `gs://`, with config.json and model.safetensors, or its shards and
        their index.
      dtype: of the parameters, "float32" or "bfloat16"; None keeps what the file holds. Master
        parameters want "float32".
      shardings: a tree like the parameters; None gives numpy arrays in host memory.
      vocab_size: rows of the embedding that are wanted, where the folder's are padded to another
        size (see `vocabulary`); None for what config.json says. A change is warned of.

    Returns:
      The config, ready for the family's `build`, and the parameters as a nested dict: numpy arrays,
      or `jax.Array`s laid out by `shardings`.

    Raises:
      FileNotFoundError: no config.json, or no tensors, or shards are missing.
      ValueError: the config is none of a model that we build; a file is cut; tensors are unknown,
        missing, or of the wrong shape, all of them named in one message; the tokenizer beside them
        has more ids than the embedding rows; or a dtype that is not used here.
      OSError: a remote folder cannot be read.
    """
    with open_hf(path, vocab_size=vocab_size) as opened:
        return opened.config, opened.params.astype(dtype).load(shardings)


def save_hf(
    config: Any,
    params: Params,
    path: epath.PathLike,
    *,
    max_shard_bytes: int = 5_000_000_000,
    source: epath.PathLike | None = None,
) -> None:
    """Writes a folder that `transformers` and `load_hf` read; dtypes stay as they are.

    Args:
      config: the model's config.
      params: its parameters, all of them addressable by this process.
      path: the folder; made where absent.
      max_shard_bytes: tensors beyond this many bytes go into further files with an index.
      source: the folder that the model came from: its tokenizer, generation_config.json and what
        else its config.json says are carried along, and where it holds tensors, theirs is how
        names begin (GPT-2 is published without `transformer.`).

    Raises:
      FileNotFoundError: there is no folder `source`.
      ValueError: parameters are unknown, missing, or of the wrong shape; one message names all.
    """
    prefix = None if source is None else prefix_of(source)
    write_hf(
        config,
        of_params(params),
        path,
        max_shard_bytes=max_shard_bytes,
        source=source,
        prefix=prefix,
    )
