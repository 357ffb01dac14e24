#!/bin/sh
# Compiles what only computes without the fuzzer's counters: curves, ciphers and hashes of others, in which no input takes
# another way, and which would take most of the time.
#
# cargo calls it as: rustc.sh RUSTC ARGUMENT...
rustc=$1
shift
case " $* " in
*" --crate-name "curve25519_dalek" "* | *" --crate-name "x25519_dalek" "* | *" --crate-name "subtle" "* | \
*" --crate-name "blake2" "* | *" --crate-name "digest" "* | *" --crate-name "block_buffer" "* | \
*" --crate-name "chacha20" "* | *" --crate-name "poly1305" "* | *" --crate-name "chacha20poly1305" "* | \
*" --crate-name "cipher" "* | *" --crate-name "universal_hash" "* | *" --crate-name "ring" "*)
    for argument do
        shift
        case $argument in
        -Cpasses=sancov-module) ;;
        *) set -- "$@" "$argument" ;;
        esac
    done
    ;;
esac
exec "$rustc" "$@"
