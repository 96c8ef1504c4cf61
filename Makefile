# Two commands do everything, set-up included:  make biomed   and   make test
.PHONY: biomed test check stop setup
.DEFAULT_GOAL := biomed

HEADWATER := .venv/bin/headwater

# Both environments are made side by side; each is skipped when it is what the pins ask for.
setup:
	@infra/install.sh serve & serve=$$!; infra/install.sh main; main=$$?; wait $$serve && exit $$main

# make biomed [DATA=folder [EVAL=folder]] [SET="training.steps=200 ..."]
biomed: setup
	@$(HEADWATER) run biomed $(if $(DATA),--data "$(DATA)") $(if $(EVAL),--eval "$(EVAL)") $(foreach s,$(SET),--set "$(s)")

test: setup
	@.venv/bin/python -m infra.check

# Lint, format, types and import direction only.
check: setup
	@.venv/bin/python -m infra.check --no-tests

stop:
	@if [ -x $(HEADWATER) ]; then $(HEADWATER) down; fi
