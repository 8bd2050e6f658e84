# `make demo` and `make test` are the two commands; each makes what it needs in .venv.
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo libero test test-libero soak lint bench clean

demo: $(VENV)/ready
	$(BIN)/cgap doctor
	$(BIN)/cgap study run --preset demo

libero: $(VENV)/libero
	$(BIN)/cgap study run --preset libero-small

test: $(VENV)/ready lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-libero: $(VENV)/libero
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/sims/test_libero*.py tests/demos/test_libero_hdf5.py tests/test_libero_study.py

soak: $(VENV)/ready
	MUTANTS=3000 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 tests/demos/test_mutations.py

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/ready
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/rollout_speed.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/tokenizer_speed.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/policy_speed.py
	OMP_NUM_THREADS=1 LP_NUM_THREADS=0 $(BIN)/python benchmarks/libero_speed.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/feature_speed.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/import_speed.py

$(VENV)/ready: scripts/setup.sh pyproject.toml
	bash scripts/setup.sh $(VENV)
	touch $@

$(VENV)/libero: $(VENV)/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[libero]' 2>&1 | grep -v '^WARNING: Location' || true
	$(BIN)/python -c 'import libero'
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
