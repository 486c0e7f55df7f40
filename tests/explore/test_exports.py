import inspect
from importlib import import_module
from pathlib import Path

import pytest

from featurebank import explore


def test_no_module_is_called_like_a_name_it_would_shadow():
    modules = {file.stem for file in Path(explore.__file__).parent.iterdir()}
    assert not modules & set(explore.__all__)


def test_every_name_is_its_function_or_class_whatever_was_loaded_before():
    for home in set(explore._HOMES.values()):
        import_module(f"featurebank.explore.{home}")
    assert set(explore._HOMES) == set(explore.__all__) == set(dir(explore))
    for name in explore.__all__:
        found = getattr(explore, name)
        assert inspect.isfunction(found) or inspect.isclass(found), name
        assert found.__doc__, name
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = explore.nothing
