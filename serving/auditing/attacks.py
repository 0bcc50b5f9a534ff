"""Attacks that remove a mark: by a network that has never seen it, with the mark's file, or from marked copies."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import Callable, NamedTuple

import numpy as np
import tensorflow as tf

import pretrained
from common.command_line import UserError
from serving.auditing import estimation
from training.evaluation import model
from training.keyed.restore import KeyedRestorer
from training.run import exportable

UNTOUCHED, BLIND, KEYED = "untouched", "blind", "keyed"
_ESTIMATED = re.compile(r"estimated-(\d+)")


class Restored(NamedTuple):
    """A copy after an attack: uint8 `[H, W, 3]`, and whether the mark was located; None if not applicable."""

    picture: np.ndarray
    located: bool | None = None


class Attack(NamedTuple):
    """An attack on marked copies.

    Attributes:
      restore: maps a copy, uint8 `[H, W, 3]`, to the attack's result; None if the attack is not possible.
      estimate: the mark that the attack estimated, uint8 `[h, w, 4]`; None if it did not estimate one.
      reason: why the attack is not possible; None if it is.
    """

    restore: Callable[[np.ndarray], Restored] | None
    estimate: np.ndarray | None = None
    reason: str | None = None


def copies_needed(name: str) -> int:
    """Returns how many marked copies an attack estimates the mark from; 0 if it does not estimate.

    Raises:
      UserError: no such attack, or an estimate from too few copies.
    """
    if name in (BLIND, KEYED):
        return 0
    match = _ESTIMATED.fullmatch(name)
    if not match:
        raise UserError(f"--attacks: no attack is called {name!r}; there are blind, keyed and estimated-N")
    if int(match[1]) < estimation.LEAST_COPIES:
        raise UserError(f"--attacks: {name}: at least {estimation.LEAST_COPIES} copies are needed")
    return int(match[1])


@contextlib.contextmanager
def _as_it_was_traced() -> Iterator[None]:
    """Disables graph optimization, which would take more time than it saves on a mark's few images."""
    options = tf.config.optimizer.get_experimental_options()
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    try:
        yield
    finally:
        before = options.get("disable_meta_optimizer", False)
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": before})


def _keyed(rgba: np.ndarray, repair: exportable.Exportable | None) -> Callable[[np.ndarray], Restored]:
    # The audit never scales or rotates marks; searching for that would take most of the time.
    restorer = KeyedRestorer(rgba, repair, (1.0, 1.0), (0.0, 0.0))

    # One graph for images of all sizes.
    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8)])
    def restored(pictures: tf.Tensor) -> dict[str, tf.Tensor]:
        return restorer(pictures)

    def restore(picture: np.ndarray) -> Restored:
        with _as_it_was_traced():
            found = restored(tf.constant(picture[None]))
        return Restored(found["restored"][0].numpy(), bool(found["opacity"][0] > 0))

    return restore


class Attacks:
    """The attacks and what they share: the networks, and one graph per known mark."""

    def __init__(self, names: Sequence[str], model_path: str | None, repair: str | None):
        """Loads the networks that the named attacks need.

        Args:
          names: `blind`, `keyed`, `estimated-N`.
          model_path: the blind attack's model: an export, one of its versions, or a training workdir; None for the
            bundled one.
          repair: a repair network's workdir; None for the bundled one, "" for no repair.

        Raises:
          UserError: a path is invalid.
        """
        generic = str(pretrained.GENERIC) if model_path is None else model_path
        self.model = model.load(generic) if BLIND in names else None
        needs_repair = repair != "" and any(name != BLIND for name in names)
        workdir = str(pretrained.REPAIR) if repair is None else repair
        self._repair = exportable.load(workdir, is_repair=True) if needs_repair else None
        self._of_marks: dict[bytes, Callable[[np.ndarray], Restored]] = {}

    def _blind(self, picture: np.ndarray) -> Restored:
        return Restored(self.model.restore(picture[None])[0])

    def _of_mark(self, rgba: np.ndarray) -> Callable[[np.ndarray], Restored]:
        key = np.int64(rgba.shape).tobytes() + rgba.tobytes()
        if key not in self._of_marks:
            self._of_marks[key] = _keyed(rgba, self._repair)
        return self._of_marks[key]

    def prepare(self, name: str, rgba: np.ndarray, copies: Sequence[np.ndarray]) -> Attack:
        """Prepares an attack.

        Args:
          name: `blind`, `keyed`, `estimated-N`, or `untouched`, which leaves copies unchanged.
          rgba: the mark that was applied, uint8 `[h, w, 4]`.
          copies: marked copies, uint8 `[H, W, 3]`; at least `copies_needed(name)`.
        """
        if name == UNTOUCHED:
            return Attack(Restored)
        if name == BLIND:
            return Attack(self._blind)
        if name == KEYED:
            return Attack(self._of_mark(rgba))
        try:
            estimated = estimation.estimate(copies[: copies_needed(name)])
        except estimation.NotEstimated as error:
            return Attack(None, reason=str(error))
        return Attack(_keyed(estimated, self._repair), estimated)
