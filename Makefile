# `make demo` and `make test` are the two commands; each makes what it needs in .venv.
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo libero test test-libero test-cluster test-extras soak fuzz audit locked lint bench constraints clean

demo: $(VENV)/ready
	$(BIN)/cgap doctor
	$(BIN)/cgap study run --preset demo

libero: $(VENV)/libero
	$(BIN)/cgap study run --preset libero-small

test: $(VENV)/ready lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-libero: $(VENV)/libero
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/sims/test_libero*.py tests/demos/test_libero_hdf5.py tests/test_libero_study.py

# What takes Ray, several processes of one training, or a store behind a URL.
test-cluster: $(VENV)/cluster
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/store/test_ray.py tests/store/test_remote_store.py tests/nn/test_ranks.py tests/test_cluster.py

# All faults that docs/faults.md lists, for an hour or two; what is done is kept in soak/, and a second call goes on from it.
soak: $(VENV)/ready
	OMP_NUM_THREADS=1 $(BIN)/python tests/soak --out soak

# Hostile input for every reader, SECONDS in all; with atheris, where the extra fuzz is installed.
fuzz: $(VENV)/ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[fuzz]'
	PYTHONPATH=scripts OMP_NUM_THREADS=1 $(BIN)/python -m fuzz --seconds $${SECONDS:-3600}

# Known faults of the packages in requirements.lock; a package that cannot be looked up is a failure, too.
audit: $(VENV)/ready
	$(BIN)/python -m pip install --quiet pip-audit
	$(BIN)/pip-audit --strict --disable-pip --require-hashes --requirement requirements.lock

# The environment with every package checked against its hash.
locked:
	LOCKED=1 bash scripts/setup.sh $(VENV)

# Each extra alone in a fresh environment, with the lowest versions that pyproject.toml allows and with the newest.
test-extras: $(VENV)/ready
	$(BIN)/python scripts/test_extras.py

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/ready
	$(BIN)/python benchmarks --out docs/benchmarks.json --page docs/benchmarks.md

constraints:
	bash scripts/constraints.sh

$(VENV)/ready: scripts/setup.sh pyproject.toml constraints.txt
	bash scripts/setup.sh $(VENV)
	touch $@

$(VENV)/libero: $(VENV)/ready
	EXTRAS=metaworld,data,serve,text,dev,libero bash scripts/setup.sh $(VENV)
	$(BIN)/python -c 'import libero'
	touch $@

# Ray, fsspec with S3, accelerate; and a server that speaks S3 on this machine, for the tests.
$(VENV)/cluster: $(VENV)/ready
	EXTRAS=metaworld,data,serve,text,dev,ray,remote,devices bash scripts/setup.sh $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt "moto[server]>=5,<6"
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
