"""An application that uses every builtin plugin, for the proof `soak`."""
