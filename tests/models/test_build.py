"""Models by name: published sizes, and what is refused."""

import dataclasses

import jax
import numpy as np
import pytest

from specialize_jax import models
from specialize_jax.models import t5


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("t5_1_1_small", 76_961_152),
        ("t5_1_1_base", 247_577_856),
        ("flan_t5_large", 783_150_080),
        ("flan_t5_xl", 2_849_757_184),
        ("flan_t5_xxl", 11_135_332_352),
        ("t5_small", 60_506_624),
        ("t5_base", 222_903_552),
        ("t5_large", 737_668_096),
        ("t5_3b", 2_851_598_336),
        ("t5_11b", 11_307_321_344),
        ("gpt2_small", 124_439_808),
        ("gpt2_medium", 354_823_168),
        ("gpt2_large", 774_030_080),
        ("gpt2_xl", 1_557_611_200),
    ],
)
def test_published_sizes_have_published_parameter_counts(size, expected):
    shapes = jax.eval_shape(models.build(size).init, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == expected


def test_unknown_size_lists_choices():
    with pytest.raises(ValueError, match="t5_1_1_tiny.*t5_11b.*gpt2_xl, got 't5_huge'"):
        models.build("t5_huge")


def test_unknown_override_and_unknown_choice_are_named():
    with pytest.raises(ValueError, match="Unknown overrides of t5_1_1_tiny: d_modle. Known: d_mod"):
        models.build("t5_1_1_tiny", d_modle=3)
    with pytest.raises(ValueError, match="remat to be one of none, full, minimal, got 'some'"):
        models.build("t5_1_1_tiny", remat="some")
    with pytest.raises(ValueError, match="attention to be one of plain, fused, got 'flash'"):
        models.build("gpt2_tiny", attention="flash")


@pytest.mark.parametrize(
    ("size", "field", "value"),
    [
        ("t5_1_1_tiny", "d_model", -5),
        ("t5_1_1_tiny", "num_heads", 0),
        ("t5_1_1_tiny", "vocab_size", "32128"),
        ("gpt2_tiny", "num_heads", 0),
        ("gpt2_tiny", "num_positions", None),
        ("gpt2_tiny", "pad_id", -1),
        ("gpt2_tiny", "dropout_rate", 1.5),
        ("t5_1_1_tiny", "dropout_rate", None),
    ],
)
def test_numbers_that_no_student_can_have_are_named(size, field, value):
    with pytest.raises(ValueError, match=f"Expected {field} to be .*, got {value!r}"):
        models.build(size, **{field: value})


def test_gpt2_pads_with_a_token_that_it_has():
    with pytest.raises(ValueError, match="pad_id below vocab_size, 256, got 50256"):
        models.build("gpt2_tiny", vocab_size=256)
    assert models.build("gpt2_tiny", vocab_size=256, pad_id=255).pad_id == 255


def test_flan_is_tuned_with_dropout_and_overrides_replace_it():
    assert models.build("flan_t5_small").config.dropout_rate == 0.1
    assert models.build("flan_t5_small", dropout_rate=0.0).config == t5.SIZES["t5_1_1_small"]


@pytest.mark.parametrize("size", ["t5_1_1_tiny", "gpt2_tiny"])
def test_a_model_is_built_again_from_its_fields(size):
    model = models.build(size, dtype="bfloat16")
    again = models.rebuild(model.family, "mine", dataclasses.asdict(model.config))
    assert (again.config, again.family, again.name) == (model.config, model.family, "mine")


def test_unknown_family_lists_choices():
    with pytest.raises(ValueError, match="family to be one of t5, gpt2, got 'bert'"):
        models.rebuild("bert", "mine", {})


def test_inputs_are_padded_on_the_side_that_the_model_reads():
    rows = [[5, 6, 7], [8]]
    encoder = models.pad_inputs(models.build("t5_1_1_tiny"), rows, 4)
    np.testing.assert_array_equal(encoder, [[5, 6, 7, 0], [8, 0, 0, 0]])
    prompts = models.pad_inputs(models.build("gpt2_tiny"), rows, 4)
    np.testing.assert_array_equal(prompts, [[50256, 5, 6, 7], [50256, 50256, 50256, 8]])
    with pytest.raises(ValueError, match="at most 2 tokens, got one of 3"):
        models.pad_inputs(models.build("gpt2_tiny"), rows, 2)
