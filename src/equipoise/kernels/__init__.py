"""Inner loops: one folder a kernel, one file an implementation, one contract in the folder's first page.

Nothing here knows of problems, plans or engines: arrays in, arrays out.
"""
