"""Predict whether a hibernation image can be resumed without killing a parked CPU."""

__version__ = "0.1.0"
