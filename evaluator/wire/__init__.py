"""Bytes and values: formats, configuration, and the records that are written and read."""
