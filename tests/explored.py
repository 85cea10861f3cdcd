"""How much hypothesis tries: as much as its profile says, `test` unless another is asked for (`pytest --hypothesis-profile`)."""

from hypothesis import settings

_TIMES = {"quick": 0.25, "test": 1.0, "long": 20.0}
"""`quick` is for `make test-quick`, `long` for `make soak`."""
_USUAL = 100


def examples(usual: int) -> int:
    """Return the number of examples for the active profile; `make test` uses `usual`.

    Call it when a test module is imported, or later.
    """
    return round(usual * _TIMES[settings.get_current_profile_name()])


for name, times in _TIMES.items():
    settings.register_profile(name, max_examples=round(_USUAL * times), deadline=None)
settings.load_profile("test")
