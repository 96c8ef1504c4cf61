#!/usr/bin/env bash
# Installs Chromium for the test that clicks through Prefect's UI, on Debian as root. Never fails: without Chromium that
# test is skipped.
command -v chromium >/dev/null && exit 0
grep -qx 'ID=debian' /etc/os-release 2>/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || exit 0

echo "installing Chromium for the test of Prefect's UI ..." >&2
export DEBIAN_FRONTEND=noninteractive
quick=(-qq -o Acquire::Retries=1 -o Acquire::http::Timeout=20)
install() { timeout 240 apt-get "${quick[@]}" install -y --no-install-recommends chromium; }
install >/dev/null 2>&1 || { timeout 120 apt-get "${quick[@]}" update && install; } >/dev/null 2>&1 ||
  echo "Chromium could not be installed: the test of Prefect's UI will be skipped" >&2
exit 0
