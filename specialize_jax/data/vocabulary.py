"""A SentencePiece vocabulary whose file is known later than the tasks that use it."""

from collections.abc import Callable

import seqio


class LazyVocabulary(seqio.SentencePieceVocabulary):
    """A vocabulary that asks for its file when it is first used.

    Two are the same where they ask the same function.
    """

    def __init__(self, file: Callable[[], str]) -> None:
        """Creates it; `file` returns the path of a SentencePiece model."""
        super().__init__("", extra_ids=0)
        self._file = file

    def _model_context(self):  # type: ignore[no-untyped-def]
        self._sentencepiece_model_file = self._file()
        return super()._model_context()

    def __eq__(self, other: object) -> bool:
        """Returns whether the other asks the same function for its file."""
        return isinstance(other, LazyVocabulary) and self._file is other._file
