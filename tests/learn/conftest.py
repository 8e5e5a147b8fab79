import pytest


@pytest.fixture(autouse=True)
def _programs_are_compiled_quickly(quick_compile):
    """The networks are tiny: to optimise takes longer than to run."""
