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
    "ClusterError": ConnectionError,
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


def test_an_argument_is_taken_under_its_old_name_with_a_notice_of_one_line():
    @errors.renamed(seed="random_state")
    def draw(random_state=0):
        return random_state

    with pytest.warns(FutureWarning, match=r"^draw\(seed=\) is now random_state=; the old spelling goes") as found:
        assert draw(seed=3) == 3
    assert (len(found), found[0].filename) == (1, __file__)
    assert draw(random_state=4) == 4
