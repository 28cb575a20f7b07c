"""How far a student is from what a teacher listed, by outcome.

Letters: `N` tokens, `V` student vocabulary, `K` listed entries. `p_k` are the listed teacher
probabilities, `t` its tail mass; `q_k` the student's probabilities of the same ids, `r` its mass
outside them. `p'` is `p` divided by its sum.

| divergence   | tail          | temperature | value                                            |
|--------------|---------------|-------------|--------------------------------------------------|
| `forward_kl` | `bucket`      | 1           | `sum_k p_k log(p_k / q_k) + t log(t / r)`        |
| `forward_kl` | `renormalize` | any         | `sum_k p'_k log(p'_k / q_k)`                     |
| `forward_kl` | `drop`        | 1           | `sum_k p_k log(p_k / (q_k + 1e-10) + 1e-10)`     |
| `reverse_kl` | `bucket`      | 1           | `sum_k q_k log(q_k / p_k) + r log(r / t)`        |
| `jsd`        | `bucket`      | 1           | `B KL(p, m) + (1-B) KL(q, m)`, `m = B p + (1-B) q` |
| `jsd`        | `renormalize` | any         | the same, of `p'`                                |

- `bucket`: all that is not listed is one more outcome. Exact where the list covers V, elsewhere a
  lower bound of the true divergence (data processing inequality).
- `renormalize`: the teacher's tail is divided away; the student is not renormalised, it is drawn to
  give nothing to ids that are not listed.
- `drop`: the published expression over the listed entries; a token's pull is scaled by its listed
  mass.

The other pairs are not defined. The reverse divergence is infinite where the teacher gives nothing
to what the student gives something to, as renormalising makes it of every id not listed; a tail too
small to be stored (below 1e-7) counts as 1e-7. With `drop` a student could escape `reverse_kl` and
`jsd` to ids that are not listed. How a tail would spread at another temperature is unknown, so a
temperature needs `renormalize`.

A temperature `T` divides the student's logits and the teacher's listed log-probabilities (then
renormalised), and multiplies the value by T^2, which keeps the size of gradients
(https://arxiv.org/abs/1503.02531, section 2). `jsd` with weight `B` is the generalised
Jensen-Shannon divergence of https://arxiv.org/abs/2306.13649.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from specialize_jax.schemas import UNUSED_LOGPROB

# Unused slots hold UNUSED_LOGPROB (-1e4), which float16 stores as -1e4 exactly; the margin lets a
# file that went through another precision still read as unused.
USED_ABOVE = 0.9 * UNUSED_LOGPROB

DIVERGENCES = ("forward_kl", "reverse_kl", "jsd")
TAILS = ("bucket", "renormalize", "drop")
LEGAL = (
    ("forward_kl", "bucket"),
    ("forward_kl", "renormalize"),
    ("forward_kl", "drop"),
    ("reverse_kl", "bucket"),
    ("jsd", "bucket"),
    ("jsd", "renormalize"),
)
"""Pairs of divergence and tail that are defined."""

# Less than this is no tail in a stored target, so the least that one can be.
_LOG_SMALLEST_TAIL = math.log(1e-7)


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises a ValueError that lists the choices unless `value` is one of them."""
    if value not in choices:
        raise ValueError(f"Unknown {name} {value!r}; choose one of: {', '.join(choices)}.")


@dataclasses.dataclass(frozen=True)
class Rule:
    """A divergence with its settings; see the table of this module.

    Attributes:
      divergence: of `DIVERGENCES`.
      tail: of `TAILS`; what becomes of mass that is not listed.
      temperature: > 0; other than 1 only with tail `renormalize`.
      beta: in (0, 1), the teacher's weight in the mixture; read by `jsd` alone.

    Raises:
      ValueError: an unknown name, a pair or temperature that is not defined, a beta out of range.
    """

    divergence: str = "forward_kl"
    tail: str = "bucket"
    temperature: float = 1.0
    beta: float = 0.5

    def __post_init__(self) -> None:
        check_choice("divergence", self.divergence, DIVERGENCES)
        check_choice("tail", self.tail, TAILS)
        if (self.divergence, self.tail) not in LEGAL:
            pairs = ", ".join(f"{divergence} with {tail}" for divergence, tail in LEGAL)
            raise ValueError(
                f"{self.divergence} is not defined with tail {self.tail!r}; defined are: {pairs}."
            )
        if not self.temperature > 0:
            raise ValueError(f"Expected a temperature above 0, got {self.temperature}.")
        if self.temperature != 1 and self.tail != "renormalize":
            raise ValueError(
                f"Temperature {self.temperature} needs tail 'renormalize', got {self.tail!r}: how "
                "unlisted mass spreads at another temperature is unknown."
            )
        if not 0 < self.beta < 1:
            raise ValueError(
                f"Expected beta in (0, 1), got {self.beta}; forward_kl and reverse_kl are its ends."
            )

    def __str__(self) -> str:
        text = f"{self.divergence}, tail {self.tail}"
        text += f", beta {self.beta}" if self.divergence == "jsd" else ""
        return text + (f", temperature {self.temperature}" if self.temperature != 1 else "")

    def teacher(
        self, log_p: jax.Array, log_t: jax.Array, used: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Returns the teacher's log-probabilities and tail as the rule wants them.

        Args:
          log_p: [N, K]; 0 in unused slots.
          log_t: [N].
          used: [N, K] bool.
        """
        if self.tail != "renormalize":
            return log_p, log_t
        log_p = log_p / self.temperature
        listed = jax.nn.logsumexp(jnp.where(used, log_p, -jnp.inf), axis=-1, keepdims=True)
        log_p = jnp.where(used, log_p - jnp.where(jnp.isfinite(listed), listed, 0.0), 0.0)
        return log_p, jnp.full_like(log_t, UNUSED_LOGPROB)

    def value(
        self,
        log_p: jax.Array,
        log_q: jax.Array,
        log_t: jax.Array,
        log_r: jax.Array,
        used: jax.Array,
    ) -> jax.Array:
        """Returns [N] divergences in nats.

        Args:
          log_p: [N, K] float32, as `teacher` gives them; 0 in unused slots.
          log_q: [N, K] float32; 0 in unused slots.
          log_t: [N] float32; `UNUSED_LOGPROB` without a tail.
          log_r: [N] float32; -inf where the list covers V.
          used: [N, K] bool.
        """
        if self.tail == "drop":
            return _published(log_p, log_q, used)
        # Where the list covers V there is no other outcome left to hold a tail.
        others = log_r > -jnp.inf
        has_tail = (log_t > USED_ABOVE) & others
        log_t, log_r = jnp.where(has_tail, log_t, 0.0), jnp.where(others, log_r, 0.0)
        if self.divergence == "forward_kl":
            tail = jnp.where(has_tail, jnp.exp(log_t) * (log_t - log_r), 0.0)
            value = kl(log_p, log_q, used) + tail
        elif self.divergence == "reverse_kl":
            floored = jnp.where(
                has_tail, jnp.maximum(log_t, _LOG_SMALLEST_TAIL), _LOG_SMALLEST_TAIL
            )
            tail = jnp.where(others, jnp.exp(log_r) * (log_r - floored), 0.0)
            value = kl(log_q, log_p, used) + tail
        else:
            value = self._jsd(log_p, log_q, used, used).sum(-1)
            value += self._jsd(log_t, log_r, has_tail, others)
        return value * self.temperature**2

    def _jsd(
        self, log_p: jax.Array, log_q: jax.Array, in_p: jax.Array, in_q: jax.Array
    ) -> jax.Array:
        """What each outcome adds; `in_p` and `in_q` say whether its probability is not 0."""
        beta = self.beta
        p, q = jnp.where(in_p, jnp.exp(log_p), 0.0), jnp.where(in_q, jnp.exp(log_q), 0.0)
        # Without the teacher's part the mixture is (1 - beta) q.
        both = jnp.logaddexp(math.log(beta) + log_p, math.log1p(-beta) + log_q)
        log_m = jnp.where(in_p, both, math.log1p(-beta) + log_q)
        return beta * p * (log_p - log_m) + (1 - beta) * q * (log_q - log_m)


def kl(log_p: jax.Array, log_q: jax.Array, used: jax.Array) -> jax.Array:
    """Returns [N] `sum_k p_k log(p_k / q_k)` over the used slots; all [N, K]."""
    return jnp.sum(jnp.where(used, jnp.exp(log_p) * (log_p - log_q), 0.0), axis=-1)


def _published(log_p: jax.Array, log_q: jax.Array, used: jax.Array) -> jax.Array:
    """`kl_divergence` of the code of https://arxiv.org/abs/2301.12726."""
    p = jnp.where(used, jnp.exp(log_p), 0.0)
    return jnp.sum(p * jnp.log(p / (jnp.exp(log_q) + 1e-10) + 1e-10), axis=-1)
