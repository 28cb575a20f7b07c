"""Optimizers and learning-rate schedules by name, through optax; settings are named as in t5x."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from specialize_jax.training import layers

Schedule = Callable[[Any], jax.Array]
"""step (updates done so far) -> float32 learning rate."""

SETTINGS: Mapping[str, Mapping[str, str]] = {
    "adafactor": {
        "factored": "factored",
        "multiply_by_parameter_scale": "multiply_by_parameter_scale",
        "beta1": "momentum",
        "decay_rate": "decay_rate",
        "step_offset": "decay_offset",
        "clipping_threshold": "clipping_threshold",
        "min_dim_size_to_factor": "min_dim_size_to_factor",
        "epsilon1": "eps",
    },
    "adamw": {"b1": "b1", "b2": "b2", "eps": "eps"},
}
"""optimizer -> its settings, by t5x's names -> optax's."""


def schedule(
    name: str,
    *,
    base_learning_rate: float,
    warmup_steps: int = 0,
    total_steps: int | None = None,
) -> Schedule:
    """A learning-rate schedule: linear warm-up from 0, then the named course.

    Args:
      name: `constant`; `rsqrt`, which falls as `sqrt(warmup_steps / step)` and so meets the warm-up
        at the peak (t5x's `linear_warmup * rsqrt_decay` with its base divided by
        `sqrt(warmup_steps)`); or `cosine`, half a period down to 0 at `total_steps`.
      base_learning_rate: the peak, reached at `warmup_steps`.
      warmup_steps: the rate at step `s < warmup_steps` is `s / warmup_steps` of the peak, so the
        first update is of size 0, as in t5x and in the papers' scripts.
      total_steps: where `cosine` reaches 0; the others do not use it.

    Returns:
      The schedule.

    Raises:
      ValueError: unknown name, or a setting that the name needs is missing.
    """
    courses = {
        "constant": lambda step: jnp.ones_like(step),
        "rsqrt": lambda step: jnp.sqrt(warmup_steps / jnp.maximum(step, warmup_steps)),
        "cosine": lambda step: 0.5 * (1 + jnp.cos(math.pi * _progress(step))),
    }

    def _progress(step: jax.Array) -> jax.Array:
        assert total_steps is not None
        return jnp.clip((step - warmup_steps) / max(1, total_steps - warmup_steps), 0.0, 1.0)

    if name not in courses:
        raise ValueError(f"Unknown schedule {name!r}; choose one of: {', '.join(courses)}.")
    if name == "rsqrt" and warmup_steps < 1:
        raise ValueError(f"Schedule 'rsqrt' expects warmup_steps >= 1, got {warmup_steps}.")
    if name == "cosine" and total_steps is None:
        raise ValueError("Schedule 'cosine' expects total_steps, got None.")
    if total_steps is not None and total_steps < 1:
        raise ValueError(f"A schedule expects total_steps >= 1, got {total_steps}.")
    course = courses[name]

    def learning_rate(step: Any) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        warmup = jnp.minimum(1.0, step / warmup_steps) if warmup_steps else 1.0
        return jnp.float32(base_learning_rate) * warmup * course(step)

    return learning_rate


def build(
    name: str,
    learning_rate: Schedule | float,
    *,
    weight_decay: float = 0.0,
    clip: float | None = None,
    axes: Any = None,
    **settings: Any,
) -> optax.GradientTransformation:
    """An optimizer by name.

    Args:
      name: `adafactor` (t5x's: parameter-scaled updates clipped at root mean square 1, second
        moments factored where two dimensions are at least 128) or `adamw` (betas 0.9 and 0.999,
        eps 1e-8, as in torch).
      learning_rate: a schedule or a constant. Adafactor multiplies it by each parameter's root
        mean square: 1e-3 there is not AdamW's 1e-3.
      weight_decay: share of a parameter removed per step: `weight_decay * learning_rate` for AdamW,
        `weight_decay` alone for Adafactor (as in t5x).
      clip: bound on the global norm of the gradient; None, the papers' trainer, does not clip.
      axes: the tree of the params with a tuple of logical names per leaf; where it names "layers",
        Adafactor takes each layer as a parameter of its own, see `layers.per_layer`. None: no
        parameter is a stack.
      **settings: of `SETTINGS`; what is not given is as in t5x (Adafactor) and torch (AdamW).

    Returns:
      The optimizer; its state holds float32 arrays in the shape of the parameters or less.

    Raises:
      ValueError: unknown name or setting, or a `step_offset` above 0.
    """
    builders: dict[str, Callable[..., optax.GradientTransformation]] = {
        "adafactor": functools.partial(
            optax.adafactor, learning_rate, weight_decay_rate=weight_decay or None
        ),
        "adamw": functools.partial(optax.adamw, learning_rate, weight_decay=weight_decay),
    }
    if name not in builders:
        raise ValueError(f"Unknown optimizer {name!r}; choose one of: {', '.join(builders)}.")
    tx = builders[name](**_optax_settings(name, settings))
    if name == "adafactor" and axes is not None:
        tx = layers.per_layer(tx, axes)
    return tx if clip is None else optax.chain(optax.clip_by_global_norm(clip), tx)


def _optax_settings(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings by the names of optax's function."""
    known = SETTINGS[name]
    if unknown := sorted(set(settings) - set(known)):
        raise ValueError(
            f"Optimizer {name!r} has no setting {', '.join(map(repr, unknown))}; choose from: "
            f"{', '.join(known)}."
        )
    for setting, value in settings.items():
        if not isinstance(value, (int, float, type(None))):
            raise ValueError(
                f"Expected a number, True, False or None for {setting}, got {value!r}."
            )
    if settings.get("step_offset", 0) > 0:
        raise ValueError(
            "Expected a step_offset of at most 0, because steps are counted from 0 and no decay is "
            f"defined before the offset, got {settings['step_offset']}; t5x's runs that go on from "
            "N pretraining steps without resetting the decay have -N here."
        )
    return {known[setting]: value for setting, value in settings.items()}
