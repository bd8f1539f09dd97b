#!/usr/bin/env bash
# Write the pinned requirement files anew (make lock). Needs uv.
set -eu
cd "$(dirname "$0")/.."
common=(-q --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url)
uv pip compile "${common[@]}" --extra all pyproject.toml requirements/build.in -o requirements/run.txt
uv pip compile "${common[@]}" --extra all --group test --group lint pyproject.toml requirements/build.in -o requirements/dev.txt
uv pip compile "${common[@]}" --no-deps requirements/demo.in -o requirements/demo.txt
