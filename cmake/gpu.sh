#!/bin/sh
# gpu.sh build|test|emulate|sanitize|bench|bundle|compile - the build with kernels for NVIDIA GPUs, in build/cuda.
#
# A machine with a GPU is often bare: a C compiler, CMake and CUDA, and nothing can be installed. `bundle`, on a machine that has
# the -dev packages, puts headers and static archives of the other libraries into build/gpu-bundle; carried along, the
# other commands use it wherever the packages are missing. cuBLASLt and cuDNN are looked for in the CUDA toolkit and in
# Python's nvidia packages. For machines without a GPU: `compile` only compiles the kernels for all architectures, `emulate` runs
# tests of operations on an emulated one (tests/emulator), with CUDA's headers and Python.
#
# JOBS, CMAKE_OPTIONS: as for make. CAB_TEST_DEVICE: cuda, or cuda:1 and so on. TOOLS, OPS: of `sanitize`, fewer tools and operations
# than all, as in TOOLS=racecheck OPS="norm scan"; of `emulate` OPS, EMULATOR_SEED and CAB_TEST_SLOW=0, which leaves nothing out.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
cd "$root"
bundle=$root/build/gpu-bundle
JOBS=${JOBS:-$(nproc)}

configure() { # configure PRESET
    preset=$1
    set -- -DCAB_BUNDLE=
    if ! pkg-config --exists json-c libcyaml libutf8proc libarchive libjpeg libpng cmocka 2>/dev/null; then
        if [ -d "$bundle" ]; then
            set -- -DCAB_BUNDLE="$bundle" -DCAB_WITH_ONEDNN=OFF
        else
            sh cmake/packages.sh build
        fi
    fi
    command -v ninja >/dev/null 2>&1 || set -- "$@" -G "Unix Makefiles"
    # shellcheck disable=SC2086 # several options
    cmake --preset "$preset" --log-level=WARNING "$@" ${CMAKE_OPTIONS:-}
}

build() { # build TARGET...
    configure cuda
    cmake --build build/cuda -j "$JOBS" --target "$@"
}

# The rooms that run on the device.
rooms='tensor ops models golden distill train'

run_tests() {
    targets=
    for room in $rooms; do
        for source in tests/"$room"/test_*.c; do
            name=${source##*/}
            targets="$targets ${name%.c}_$room"
        done
    done
    # shellcheck disable=SC2086 # several targets
    build $targets
    export CAB_TEST_DEVICE="${CAB_TEST_DEVICE:-cuda}"
    ctest --test-dir build/cuda --output-on-failure -j 4 -L "^($(echo "$rooms" | tr ' ' '|'))\$"
    echo "kernels of ours where cuBLASLt's and cuDNN's would be taken:"
    CAB_CUDA_OWN=1 ctest --test-dir build/cuda --output-on-failure -j 4 -R '^ops/test_(attention|head_loss|matrix)$'
}

# Names of the operations that tests/ops has tests of.
all_ops() {
    for source in tests/ops/test_*.c; do
        name=${source##*/test_}
        echo "${name%.c}"
    done
}

# Three minutes of an emulated GPU, on two slow cores; with CAB_TEST_SLOW=0 an hour.
emulate() {
    if ! command -v nvcc >/dev/null 2>&1 || ! command -v python3 >/dev/null 2>&1; then
        echo "CUDA or Python is not here: no kernel was run"
        return
    fi
    ops=${OPS:-$(all_ops)}
    targets=
    for op in $ops; do
        targets="$targets test_${op}_ops"
    done
    configure emulate
    # shellcheck disable=SC2086 # several targets
    cmake --build build/emulate -j "$JOBS" --target $targets
    export EMULATOR_SEED="${EMULATOR_SEED:-1}" CAB_TEST_SLOW="${CAB_TEST_SLOW:-1}"
    CAB_TEST_DEVICE=cuda ctest --test-dir build/emulate --output-on-failure -j "$JOBS" \
        -R "^ops/test_($(printf %s "$ops" | tr ' \n' '||'))\$"
    echo "the kernels for other GPUs where Hopper has its own:"
    EMULATOR_MAJOR=8 CAB_TEST_DEVICE=cuda ctest --test-dir build/emulate --output-on-failure -j "$JOBS" \
        -R "^ops/test_($(for op in $ops; do case $op in bridge_loss | ssd | ssd_both) printf '%s|' "$op" ;; esac done)none)\$"
}

# compute-sanitizer's tools over the tests of operations, several at a time, a line for each. Races are looked for in kernels of ours
# only: in those of cuBLASLt and cuDNN racecheck reports hazards, does not end in ten minutes, and told to leave them out makes them
# fail (CUDA 13.0, an H200), and with CAB_TEST_SLOW, which leaves out what tests only repeat: it is the slowest of the three by far.
sanitize() {
    ops=${OPS:-$(all_ops)}
    targets=
    for op in $ops; do
        targets="$targets test_${op}_ops"
    done
    # shellcheck disable=SC2086 # several targets
    build $targets
    export CAB_TEST_DEVICE="${CAB_TEST_DEVICE:-cuda}" OMP_NUM_THREADS=2
    for tool in ${TOOLS:-memcheck initcheck racecheck}; do
        for op in $ops; do
            echo "$tool $op"
        done
    done | xargs -P "$JOBS" -L 1 sh cmake/gpu.sh sanitize-one
}

sanitize_one() { # sanitize_one TOOL OPERATION
    log=build/cuda/$1-$2.log
    [ "$1" != racecheck ] || export CAB_CUDA_OWN=1 CAB_TEST_SLOW=1
    started=$(date +%s)
    status=0
    compute-sanitizer --tool "$1" --error-exitcode 9 --print-limit 5 --require-cuda-init no \
        "build/cuda/tests/test_${2}_ops" >"$log" 2>&1 || status=$?
    echo "$1 $2: $(grep -E 'SUMMARY' "$log" | tail -1 | tr -d '=') ($(($(date +%s) - started)) s)"
    [ $status -eq 0 ] || { tail -30 "$log"; return 1; }
}

# Single operations, then training steps and decoding of the sizes that bench/results has tables of.
bench() {
    build cab bench_gpu_ops
    device=${CAB_TEST_DEVICE:-cuda}
    build/cuda/bench/bench_gpu_ops --device "$device"
    while read -r teacher student stage rest; do
        # shellcheck disable=SC2086 # several options
        build/cuda/cab bench step --device "$device" --teacher-config "bench/configs/$teacher.json" \
            --student-config "bench/configs/$student.json" --stage "$stage" --steps 10 $rest
    done <<-EOF
	vit-tiny vim-tiny-tied joint --batch 128
	vit-tiny vim-tiny-tied joint --batch 512
	vit-small vim-small-tied joint --batch 256
	vit-tiny vim-tiny joint --batch 128
	vit-tiny vim-tiny joint --batch 512
	vit-small vim-small joint --batch 256
	distilgpt2 phi-mamba-123m align --batch 32 --seq-len 1024
	distilgpt2 phi-mamba-123m soft --batch 32 --seq-len 1024
	smollm2 smollm2-falcon-h1 soft --batch 16 --seq-len 1024
	phi-1.5 phi-mamba-1.5b align --batch 4 --seq-len 2048 --recompute 6
	phi-1.5 phi-mamba-1.5b soft --batch 4 --seq-len 2048 --recompute 8
	phi-1.5 phi-mamba-1.5b soft --batch 4 --seq-len 2048 --recompute 8 --teacher-precision fp8
	EOF
    while read -r teacher student; do
        build/cuda/cab bench decode --device "$device" --teacher-config "bench/configs/$teacher.json" \
            --student-config "bench/configs/$student.json"
    done <<-EOF
	distilgpt2 phi-mamba-123m
	phi-1.5 phi-mamba-1.5b
	EOF
}

headers() { # headers DIRECTORY FILE...: from wherever the compiler finds them
    to=$1
    shift
    mkdir -p "$to"
    for name; do
        from=
        for place in /usr/include /usr/include/x86_64-linux-gnu /usr/local/include; do
            [ -z "$from" ] && [ -e "$place/$name" ] && from=$place/$name
        done
        [ -n "$from" ] || { echo "gpu-bundle: the header $name is missing" >&2; exit 1; }
        cp -rL "$from" "$to/"
    done
}

make_bundle() {
    sh cmake/packages.sh build portable
    rm -rf "$bundle"
    headers "$bundle/include" json-c cyaml yaml.h pcre2.h utf8proc.h archive.h archive_entry.h jpeglib.h jconfig.h \
        jmorecfg.h jerror.h png.h pngconf.h pnglibconf.h zlib.h zconf.h cmocka.h
    mkdir -p "$bundle/lib"
    # libarchive.a asks for more than these, for formats that the tool does not read and that are not linked.
    for name in json-c cyaml yaml pcre2-8 utf8proc archive jpeg png16 z lzma zstd bz2 nettle; do
        cp "$(${CC:-cc} -print-file-name=lib$name.a)" "$bundle/lib/"
    done
    cp -L "$(${CC:-cc} -print-file-name=libcmocka.so)" "$bundle/lib/libcmocka.so.0"
    du -sh "$bundle"
}

# Every kernel for every architecture that nvcc knows (sm_100 and sm_120: CUDA 12.8), objects only, hardly optimised where nvcc can leave
# that out, which takes a third of the time; no GPU is needed. Says so and succeeds where there is no compiler.
compile() {
    if ! command -v nvcc >/dev/null 2>&1; then
        echo "nvcc is not here: the GPU kernels were not compiled"
        return
    fi
    architectures='80;90a'
    for architecture in 100 120; do
        ! nvcc --list-gpu-arch | grep -qx "compute_$architecture" || architectures="$architectures;$architecture"
    done
    quick=
    ! nvcc --help | grep -q -e --Ofast-compile || quick=-DCMAKE_CUDA_FLAGS=--Ofast-compile=max
    CMAKE_OPTIONS="${CMAKE_OPTIONS:-} $quick -B build/cuda-all -DCAB_TESTS=OFF -DCAB_CUDA_ARCHITECTURES=$architectures"
    configure cuda
    cmake --build build/cuda-all -j "$JOBS" --target cab_ops
}

case ${1-} in
build)
    build cab libcab
    ;;
test)
    run_tests
    ;;
emulate)
    emulate
    ;;
sanitize)
    sanitize
    ;;
sanitize-one)
    sanitize_one "$2" "$3"
    ;;
bench)
    bench
    ;;
bundle)
    make_bundle
    ;;
compile)
    compile
    ;;
*)
    echo "usage: gpu.sh build|test|emulate|sanitize|bench|bundle|compile" >&2
    exit 2
    ;;
esac
