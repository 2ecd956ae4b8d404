"""What holds for all tests."""

from hypothesis import settings

settings.register_profile("any machine", deadline=None)  # machines are shared: no test is about time
settings.load_profile("any machine")
