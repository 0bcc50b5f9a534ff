"""Shared by all commands: flags, user errors, stop signals, files, fonts and the canvas file."""
