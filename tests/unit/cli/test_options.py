"""Options of the form ``name=value``."""

import pytest

from midalign.cli.options import columns_of, named, weights_of
from midalign.errors import RunError


@pytest.mark.parametrize(
    "parse",
    [
        lambda: named("adapter", ["task=a", "task=b"]),
        lambda: weights_of("task=1,task=0.5"),
        lambda: columns_of("eng=0,eng=1"),
    ],
)
def test_a_name_that_comes_twice_is_refused(parse):
    with pytest.raises(RunError, match="twice, and one of the two would be lost"):
        parse()
