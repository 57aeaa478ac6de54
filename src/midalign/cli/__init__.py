"""The command ``midalign``: reads options, talks to people; one file for each verb."""
