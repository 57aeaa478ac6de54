"""The command ``midalign``: reads options, prints results; one file for each command."""
