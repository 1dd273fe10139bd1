"""Settings of the whole suite."""

from hypothesis import settings

# A test checks and never times; and the first example of many waits for a kernel to be compiled.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
