"""Compiled loops over bytes: what the signals measure one character at a time.

A kernel takes the bytes of one document or of a whole batch as `np.uint8` and gives numbers and arrays; it sees no
Python object.
"""
