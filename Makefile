PYTHON ?= .venv/bin/python

.PHONY: container-test
container-test: ## build the container image, run it as Grand Challenge does, compare voxels with a run outside
	$(PYTHON) -m pytest -m container tests/container
