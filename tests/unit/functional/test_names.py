"""Every name of a choice is one that its function knows, and the other way round."""

from midalign.functional.margin import CANDIDATES as KNOWN_CANDIDATES
from midalign.functional.merge_methods import METHODS
from midalign.functional.names import CANDIDATES, MERGE_METHODS


def test_the_names_are_those_that_the_functions_know():
    assert tuple(METHODS) == MERGE_METHODS
    assert KNOWN_CANDIDATES == CANDIDATES
