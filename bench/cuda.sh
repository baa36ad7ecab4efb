#!/bin/sh
# The benchmark on a machine with an NVIDIA GPU, in ten minutes. Builds and fetches nothing.
#
#     sh bench/cuda.sh GRAFT [DIR] [OPTIONS OF run.py…]
#
# GRAFT  a binary of `cargo build --release --workspace --features cuda`, stripped, built anywhere
# DIR    where RESULTS-cuda.md, results.json and doctor.txt go; $OUT where it is left out
#
# PYTHON  has the peers, and runs the bench (python3)          DEVICE  cuda or cuda:N (cuda)
# WORK    models and logs, 25 GB (/tmp/graft-bench-cuda)       LIMIT   seconds for everything (570)
set -eu

began=$(date +%s)
say() { echo "cuda.sh: $*" >&2; }
fail() { say "$*"; exit 1; }

[ $# -ge 1 ] || fail "which binary? sh bench/cuda.sh GRAFT [DIR] [OPTIONS OF run.py…]"
graft=$1
shift
case ${1:--} in
    -*) out=${OUT:-} ;;
    *) out=$1; shift ;;
esac
[ -n "$out" ] || fail "where to? give a folder after the binary, or set OUT"
[ -x "$graft" ] || fail "$graft is no program that can be run"
graft=$(cd "$(dirname "$graft")" && pwd)/$(basename "$graft")
bench=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
device=${DEVICE:-cuda}
work=${WORK:-${TMPDIR:-/tmp}/graft-bench-cuda}
mkdir -p "$out" "$work"

# 1. The driver.
command -v nvidia-smi >/dev/null || fail "there is no nvidia-smi: is the NVIDIA driver installed?"
nvidia-smi --query-gpu=index,name,driver_version,memory.total,memory.used --format=csv >&2 || fail "nvidia-smi finds no GPU"

# 2. The peers' Python.
python=$(command -v "$python") || fail "there is no ${PYTHON:-python3}"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || fail "$python is older than 3.10"

# 3. NVRTC and the headers it compiles with, both of one CUDA: of a toolkit, or of PyTorch's wheels.
wheels=$("$python" -c '
import importlib.util
found = importlib.util.find_spec("nvidia")
print("\n".join(found.submodule_search_locations or [] if found else []))')
cuda='' libraries=''
while IFS= read -r root; do
    { [ -n "$root" ] && [ -e "$root/include/cuda_fp16.h" ]; } || continue
    for folder in "$root/lib64" "$root/lib" "$root/targets/x86_64-linux/lib" "$root/../cuda_nvrtc/lib"; do
        # One look, as the pattern itself stays where nothing matches it.
        for file in "$folder"/libnvrtc.so*; do
            [ -z "$cuda" ] && [ -e "$file" ] && cuda=$root libraries=$folder
        done
    done
done <<END
${CUDA_PATH:-}
/usr/local/cuda
/opt/cuda
$(echo "$wheels" | while IFS= read -r folder; do echo "$folder/cu13"; echo "$folder/cuda_runtime"; done)
END
if [ -n "$cuda" ]; then
    say "CUDA_PATH=$cuda, NVRTC in $libraries"
else
    say "warning: neither a CUDA toolkit nor PyTorch's wheels have NVRTC and cuda_fp16.h; set CUDA_PATH"
fi
[ ! -e /usr/local/nvidia/lib64/libcuda.so.1 ] || libraries=${libraries:+$libraries:}/usr/local/nvidia/lib64
libraries=$libraries${LD_LIBRARY_PATH:+${libraries:+:}$LD_LIBRARY_PATH}

# Graft alone gets them: PyTorch finds its own, and must not find others.
cat >"$work/graft" <<END
#!/bin/sh
${cuda:+export CUDA_PATH='$cuda'}
export LD_LIBRARY_PATH='$libraries'
exec '$graft' "\$@"
END
chmod +x "$work/graft"

# 4. What Graft finds here. The bench goes on whatever it says.
"$work/graft" doctor >"$out/doctor.txt" 2>&1 || say "warning: graft doctor ended with $?"
cat "$out/doctor.txt" >&2

# 5. Both sides in turn.
left=$((${LIMIT:-570} - $(date +%s) + began))
[ "$left" -gt 60 ] || fail "the preparation took the time: $left s are left"
"$python" "$bench/run.py" --device "$device" --graft "$work/graft" --peer-python "$python" --work-dir "$work" --out "$out" \
    --rounds 2 --steps 4 --time-limit "$left" "$@"
