PYTHON ?= .venv/bin/python

# Measures the proxy against its baselines; ARGS="--help" lists what can be chosen.
.PHONY: bench
bench:
	$(PYTHON) -m bench $(ARGS)
