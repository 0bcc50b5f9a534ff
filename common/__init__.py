"""What every command stands on: flags, user errors, stop signals, files, fonts, the canvas file."""
