"""``python -m midalign`` is the ``midalign`` command."""

from midalign.cli.main import main

if __name__ == "__main__":
    main()
