"""The ``midalign`` command: it parses and speaks, the work is done by the packages of the verbs."""
