"""One step of a teacher: its tokens and candidates, in the form that records keep."""

import math
import re
from collections.abc import Iterable

from specialize_jax.schemas import MAX_EXCESS_MASS, NO_LOGPROB

# The old completions API shows a token that is not UTF-8 by itself as `bytes:` and escapes; a space
# that belongs to the token stands before the escapes. Notebook outputs doubled the backslashes.
_ESCAPED_TOKEN = re.compile(r"bytes:( ?)((?:\\{1,2}x[0-9a-f]{2})+)")


def token_to_bytes(token: str) -> bytes:
    r"""Returns the bytes of a token string as the old completions API shows it.

    Args:
      token: as ` Nat`, or `bytes: \xc3` for a token that is not UTF-8 by itself.
    """
    match = _ESCAPED_TOKEN.fullmatch(token)
    if match is None:
        return token.encode()
    return match[1].encode() + bytes.fromhex(match[2].replace("\\", "").replace("x", ""))


def clean(
    pairs: Iterable[tuple[bytes, float]], *, most: int | None = None
) -> tuple[list[bytes], list[float], int]:
    """Orders the candidates of a step and drops those without mass.

    Args:
      pairs: (bytes, natural log-probability); candidates with the same bytes (tokens of a
        vocabulary may share them) are one, of their summed probability, and a pair that stands
        twice counts once. -inf and what is at or below `NO_LOGPROB` (servers' sentinel) have no
        mass.
      most: how many are kept at most; a server may list the sampled token beside those asked for.

    Returns:
      Names, log-probabilities (most probable first, of at most 0), and how many had no mass. A mass
      of little more than 1, which is rounding, is divided away.

    Raises:
      ValueError: the mass exceeds 1 by more than rounding explains.
    """
    kept: dict[bytes, float] = {}
    without = 0
    for name, logprob in dict.fromkeys(pairs):
        if logprob > NO_LOGPROB:
            kept[name] = _sum(kept[name], logprob) if name in kept else logprob
        else:
            without += 1
    order = sorted(kept, key=kept.__getitem__, reverse=True)[:most]
    logprobs = [kept[name] for name in order]
    mass = math.fsum(map(math.exp, logprobs))
    if mass > 1 + MAX_EXCESS_MASS:
        raise ValueError(f"candidate mass {mass:.4f}, expected at most 1")
    if mass > 1:
        logprobs = [logprob - math.log(mass) for logprob in logprobs]
    return order, logprobs, without


def _sum(one: float, other: float) -> float:
    """Returns the logarithm of the sum of two probabilities."""
    return max(one, other) + math.log1p(math.exp(-abs(one - other)))
