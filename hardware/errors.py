"""Errors of the hardware room: what the world did, or what a caller may not do."""


class HardwareError(RuntimeError):
    """Base of every error that a robot, a link or a driver can raise."""


class NotConnected(HardwareError):
    """The robot is not connected, or the link to it is gone."""


class NotArmed(HardwareError):
    """Motion was asked for before `arm`, after `disarm`, or in another command mode."""


class StaleState(HardwareError):
    """No state newer than the caller's `max_age_s` is to be had."""


class Faulted(HardwareError):
    """The robot is in FAULT; an operator must clear it with a reason."""


class UnsupportedMode(HardwareError):
    """The driver does not implement this command mode."""
