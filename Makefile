# Two commands do everything, set-up included:  make biomed   and   make test
.PHONY: biomed test test-full test-change check stop setup doctor
.DEFAULT_GOAL := biomed

HEADWATER := .venv/bin/headwater

# Both environments are made side by side; each is skipped when it is what the pins ask for.
setup:
	@infra/install.sh

# make biomed [RECIPE=biomed-continued] [DATA=folder [EVAL=folder]] [SET="training.steps=200 ..."]
RECIPE ?= biomed
biomed: setup
	@$(HEADWATER) run "$(RECIPE)" $(if $(DATA),--data "$(DATA)") $(if $(EVAL),--eval "$(EVAL)") $(foreach s,$(SET),--set "$(s)")

test: setup
	@infra/browser.sh
	@.venv/bin/python -m infra.check

# All tests, the long ones too: up to an hour at the usual speed.
test-full: setup
	@infra/browser.sh
	@.venv/bin/python -m infra.check --full

# Of the long tests, those of what this branch (or the last day's commits) changed: what CI runs behind `make test`.
test-change: setup
	@infra/browser.sh
	@.venv/bin/python -m infra.check --change

# Lint, format, types and import direction only.
check: setup
	@.venv/bin/python -m infra.check --no-tests

stop:
	@if [ -x $(HEADWATER) ]; then $(HEADWATER) down; fi

# make doctor [STRICT=1]: what is missing, in use or unsafe, and how to fix it; works before set-up too. If the
# doctor's exit code is 1, make's is 2.
doctor:
	@for python in .venv/bin/python $(PYTHON) python3.11 python3.12 python3.13 python3; do \
	  $$python -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null || continue; \
	  exec $$python -m infra.doctor $(if $(STRICT),--strict); \
	done; echo "doctor: no Python found; install Python 3.11 or newer, then \`make setup\`" >&2; exit 1
