"""Who is told of everything that passes through a controller: recorders, monitors."""

import logging
from collections.abc import Callable
from typing import Protocol

from robo_rl.hardware.contracts import ArmCommand, ArmState, Receipt

log = logging.getLogger(__name__)


class Listener(Protocol):
    """Called inside the control loop, so it must be quick."""

    def on_state(self, state: ArmState) -> None:
        """A new state was read."""

    def on_command(self, command: ArmCommand, receipt: Receipt) -> None:
        """A command was offered, and accepted or not."""

    def on_receipt(self, receipt: Receipt) -> None:
        """A tick was sent for the newest command; `receipt.barrier` is what the filter did."""


class Listeners(list[Listener]):
    """Tells each of its members; one that raises is dropped, for the arm must go on."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def on_state(self, state: ArmState) -> None:
        """Tell of a state."""
        self._tell(lambda listener: listener.on_state(state))

    def on_command(self, command: ArmCommand, receipt: Receipt) -> None:
        """Tell of a command."""
        self._tell(lambda listener: listener.on_command(command, receipt))

    def on_receipt(self, receipt: Receipt) -> None:
        """Tell of a tick."""
        self._tell(lambda listener: listener.on_receipt(receipt))

    def _tell(self, call: Callable[[Listener], None]) -> None:
        for listener in tuple(self):
            try:
                call(listener)
            except Exception:  # whoever listens must not stop the arm
                log.exception("%s: dropped a listener that failed", self._name)
                self.remove(listener)
