#!/bin/sh
# Builds the test programs; prints the directory that then holds NAME.wasm for each src/bin/NAME.rs.
set -e
here=$(cd "$(dirname "$0")" && pwd)
target=${PROGRAMS_TARGET:-$here/../../target/programs}
cd "$here"
env -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS cargo build --quiet --release --locked --target wasm32-wasip1 --target-dir "$target" >&2
cd "$target/wasm32-wasip1/release" && pwd
