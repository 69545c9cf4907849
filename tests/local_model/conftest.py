"""Only `make test-local-model` runs these tests: they want 127 MB of a model that is not part of the project."""

import os

collect_ignore_glob = [] if "PARLEY_LOCAL_MODEL" in os.environ else ["test_*.py"]
