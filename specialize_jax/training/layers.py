"""Optimizer state of scanned layers: which leaf follows which parameter, layer by layer.

A scanned model keeps one kind of parameter of all its layers in one array `[layers, ...]`, and its
logical axes say so by the name "layers". Elementwise optimizers do not mind. Adafactor does: the
scale of a parameter, the clipping of its update and its factored second moments are statistics of
a whole array, and should be those of a layer.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import optax

LAYERS = "layers"
"""The logical name of the stacked axis, which is the first."""

_REDUCED = {"v_row": -1, "v_col": -2}
"""Field of optax's factored state -> which dimension it has no more, in ascending order of size."""


def per_layer(tx: optax.GradientTransformation, axes: Any) -> optax.GradientTransformation:
    """A transformation that takes each layer of a stack as a parameter of its own.

    The state has the structure that `tx` gives it; each leaf that follows a stacked parameter has a
    leading axis of layers. Nothing but counters may join parameters in `tx`, as clipping by a
    global norm would.

    Args:
      tx: the transformation of a model without stacks.
      axes: the tree of the params with a tuple of logical names per leaf.

    Returns:
      The transformation; its `update` needs the params.

    Raises:
      ValueError: "layers" is not the first axis of a parameter.
    """

    def init(params: Any) -> Any:
        depths = _depths(axes, params)
        of_state = _followed(jax.eval_shape(tx.init, params), depths)
        return _over_layers(tx.init, (depths,), of_state)(params)

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        depths = _depths(axes, updates)
        of_state = _followed(state, depths)
        function = _over_layers(tx.update, (depths, of_state, depths), (depths, of_state))
        return function(updates, state, params)

    return optax.GradientTransformation(init, update)


def _depths(axes: Any, params: Any) -> Any:
    """The tree of the params with how many layers each leaf stacks; 0 for no stack."""
    return jax.tree.map(lambda leaf, names: leaf.shape[0] if _is_stack(names) else 0, params, axes)


def _is_stack(names: tuple[str | None, ...]) -> bool:
    if LAYERS in names[1:]:
        raise ValueError(f"Expected {LAYERS!r} to be a parameter's first axis, got {names}.")
    return LAYERS in names


def _over_layers(function: Callable[..., Any], given: Any, returned: Any) -> Callable[..., Any]:
    """`function` vmapped over each depth in turn; `given` and `returned` are trees of depths."""
    for depth in sorted({depth for depth in jax.tree.leaves(given) if depth}):
        axes = [
            jax.tree.map(lambda leaf: 0 if leaf == depth else None, tree)  # noqa: B023
            for tree in (given, returned)
        ]
        function = jax.vmap(function, in_axes=axes[0], out_axes=axes[1])
    return function


def _followed(opt_state: Any, depths: Any) -> Any:
    """The tree of an optimizer's state with the depth of the parameter that each leaf follows."""
    known = dict(jax.tree.leaves_with_path(depths))
    return jax.tree.map_with_path(
        lambda path, _: known.get(_parameter_of(path, known), 0), opt_state
    )


def _parameter_of(path: tuple[Any, ...], known: Mapping[tuple[Any, ...], Any]) -> tuple[Any, ...]:
    """The path of the parameter that a leaf of an optimizer's state follows; () for none."""
    return next((path[start:] for start in range(len(path)) if path[start:] in known), ())


def state_axes(opt_state: Any, params: Any, axes: Any) -> Any:
    """The logical names of an optimizer's state.

    A leaf follows the parameter whose path ends its own: of the same shape, it has its names;
    Adafactor's row and column moments have them less the one that was averaged over; what remains
    (counters, placeholders) has none.

    Args:
      opt_state: of `optimizers.build(..., axes=axes)`; shapes suffice.
      params: what it was made from; shapes suffice.
      axes: the tree of the params with a tuple of logical names per leaf.

    Returns:
      The tree of `opt_state` with a tuple per leaf, a name or None for each dimension.
    """
    all_names = jax.tree.leaves(axes, is_leaf=lambda node: isinstance(node, tuple))
    leaves = jax.tree.leaves_with_path(params)
    known = {path: (own, leaf.shape) for (path, leaf), own in zip(leaves, all_names, strict=True)}

    def names_of(path: tuple[Any, ...], leaf: Any) -> tuple[str | None, ...]:
        parameter = _parameter_of(path, known)
        if parameter:
            names, shape = known[parameter]
            if leaf.shape != shape:
                field = getattr(path[-len(parameter) - 1], "name", "")
                names, shape = _reduced(field, names, shape)
            if leaf.shape == shape:
                return names
        return (None,) * len(leaf.shape)

    return jax.tree.map_with_path(names_of, opt_state)


def _reduced(
    field: str, names: tuple[str | None, ...], shape: tuple[int, ...]
) -> tuple[tuple[str | None, ...], tuple[int, ...]]:
    """Names and shape of a parameter less what a field of the state averages over.

    Of a square matrix both moments have the same shape: only the rule tells them apart.
    """
    first = 1 if _is_stack(names) else 0
    if field not in _REDUCED or len(shape) < first + 2:
        return names, shape
    # The very call of optax, whose order of equal sizes it is.
    gone = first + int(np.argsort(shape[first:])[_REDUCED[field]])
    return names[:gone] + names[gone + 1 :], shape[:gone] + shape[gone + 1 :]
