"""The job of the probe: what cannot be is refused before anything is read or loaded."""

import pytest

from midalign.errors import OptionError
from midalign.models.source import ModelSource
from midalign.probing.job import ProbeJob


@pytest.mark.parametrize(
    ("option", "says"),
    [
        (dict(pooling="meen"), "unknown pooling 'meen'.*Did you mean 'mean'"),
        (dict(margin="ratoi"), "unknown margin 'ratoi'.*Did you mean 'ratio'"),
        (dict(candidates="nearby"), "unknown candidates 'nearby'"),
    ],
)
def test_a_name_that_does_not_exist_is_refused_at_once(option, says):
    with pytest.raises(OptionError, match=says):
        ProbeJob(ModelSource("/no/model"), "/no/data", **option)
