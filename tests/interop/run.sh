#!/bin/sh
# run.sh - make interop: transformers and llama.cpp beside cab, on the same models. Arguments go to interop.py.
#
# The first run installs 6 GB and builds llama.cpp, half an hour on two cores. $CAB_INTEROP names a build/interop that has it already.
set -eu
cd "$(dirname -- "$0")/../.."
where=${CAB_INTEROP:-build/interop}
if [ ! -x "$where/venv/bin/python" ]; then
    python3 -m venv "$where/venv"
    CMAKE_ARGS="-DLLAVA_BUILD=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_SERVER=OFF" \
        "$where/venv/bin/pip" install --quiet --no-binary llama-cpp-python --requirement tests/interop/requirements.txt
fi
mkdir -p build/interop
exec "$where/venv/bin/python" tests/interop/interop.py "$@"
