"""Rotate: inside of a head, dims are turned into the basis in which the last ones contribute least; nothing changes."""
