"""A process that ends with an error while a task is still in C++ ends with that error, and is not aborted."""

import subprocess
import sys

import pytest

SCRIPT = """
import os, sys, time
import numpy as np
from joblib import Parallel
from sklearn.svm import SVC
from featurebank.topmodels.threads import delayed

learning = []

class Last:
    def __del__(self, learning=learning, leave=os._exit):
        if learning:  # a thread is still in C++ while modules are torn down: it may abort the process any time now
            leave(99)

sys.last = Last()
X = np.random.default_rng(0).normal(size=(1500, 30))
y = np.arange(1500) % 2

def learn():
    learning.append(1)
    SVC(C=100.0, cache_size=1).fit(X, y)
    learning.pop()
    print("learned", flush=True)

def after_a_begin(what):
    while not learning:
        time.sleep(0.01)
    if what == "fails":
        raise ValueError("it fails")

tasks = [delayed(learn)(), delayed(after_a_begin)(sys.argv[1]), *[delayed(learn)()] * 20]
found = Parallel(2, prefer="threads", return_as="generator_unordered")(tasks)
next(found)
raise ValueError("it fails")
"""


@pytest.mark.parametrize("what", ["fails", "is well, and its reader fails"])
def test_the_end_waits_for_what_is_still_in_native_code_and_begins_no_more(what):
    ended = subprocess.run([sys.executable, "-c", SCRIPT, what], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1, ended.stderr
    assert "ValueError: it fails" in ended.stderr
    assert ended.stdout.count("learned") < 10


def test_a_task_gives_what_its_function_gives_and_raises_what_it_raises():
    from joblib import Parallel

    from featurebank.topmodels.threads import delayed

    assert Parallel(2, prefer="threads")(delayed(divmod)(number, 3) for number in (7, 8)) == [(2, 1), (2, 2)]
    with pytest.raises(ZeroDivisionError):
        Parallel(2, prefer="threads")([delayed(divmod)(1, 0)])
