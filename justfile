# `just` lists the recipes. None is needed to use Graft: they are the commands of the README and of CI.

[private]
default:
    @{{ just_executable() }} --list --unsorted

# What CI runs, cheapest first.
check:
    .ci/run

# Format the Rust sources.
fmt:
    cargo fmt --all

# All tests.
test:
    cargo test --release --workspace

# Graft beside transformers, PEFT and bitsandbytes on freshly drawn cases; installs them into target/parity first.
parity *args:
    python3 tests/parity/live.py {{ args }}

# The API documentation, in target/doc.
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --no-deps

# Fine-tune the built-in model on the built-in task: runs/quickstart. A second time: `just quickstart output_dir=runs/again`.
quickstart *overrides:
    cargo run --release -- train quickstart {{ overrides }}

# Pre-train the built-in model anew, from the generated texts to the committed weights.
pretrain:
    cargo run --release -p graft-data --example quickstart_corpus -- --out runs/quickstart-corpus
    cargo run --release -- train quickstart-base
    cp runs/quickstart-base/model/model.safetensors model/builtin/quickstart/model.safetensors

# Known vulnerabilities in dependencies; fetches the advisory database, which `check` does not.
advisories:
    cargo deny check advisories
