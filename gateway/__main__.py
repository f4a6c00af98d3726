"""`python -m gateway` is the command `headgate`."""

from gateway.cli.main import main

raise SystemExit(main())
