import inspect

import pytest

from featurebank import errors
from featurebank.errors import FeatureBankError, one_line

BUILTINS = {
    "SourceError": ValueError,
    "ImageError": ValueError,
    "BackboneError": ValueError,
    "WeightsError": OSError,
    "LayerError": LookupError,
    "DeviceError": RuntimeError,
    "EngineError": RuntimeError,
    "FineTuneError": ValueError,
    "StorageError": OSError,
    "BankError": ValueError,
    "CorruptError": ValueError,
    "FeatureSetError": LookupError,
    "ColumnError": LookupError,
    "TopModelError": ValueError,
    "PredictorError": ValueError,
    "PlotError": ValueError,
    "NotInstalledError": ImportError,
}
CHILDREN = {
    name: each for name, each in vars(errors).items() if inspect.isclass(each) and issubclass(each, FeatureBankError)
}


def test_every_error_is_in_the_table_above():
    assert set(CHILDREN) - {"FeatureBankError"} == set(BUILTINS)


@pytest.mark.parametrize("name", BUILTINS)
def test_an_error_is_also_the_builtin_a_caller_would_expect(name):
    error = CHILDREN[name]("found this; expected that: do this")
    assert isinstance(error, FeatureBankError)
    assert isinstance(error, BUILTINS[name])
    assert str(error) == "found this; expected that: do this"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("two\n  lines\r\nand\ttabs "), "two lines and tabs"),
        (ValueError(), "ValueError"),
        (ValueError(" \n"), "ValueError"),
        (OSError(2, "No such file", "a\nb"), "[Errno 2] No such file: 'a\\nb'"),
    ],
)
def test_one_line_is_one_line_and_never_empty(error, line):
    assert one_line(error) == line
