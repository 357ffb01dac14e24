#!/bin/sh
# Makes a mesh of two hosts on one machine, step by step, and takes it down again.
#
# A network namespace is a host as far as the network is concerned: it has its own devices, addresses and ports. What is
# done here in two namespaces works the same on two machines; then only steps 3 and 4 are left.
#
# Needs root, iproute2 and ping. Uses the weft on your PATH, or the one in $WEFT:
#
#     cargo build --release && sudo WEFT=target/release/weft examples/two-hosts.sh
set -eu

WEFT=$(command -v "${WEFT:-weft}") || { echo "two-hosts.sh: no weft program; set WEFT to its path" >&2; exit 1; }
[ "$(id -u)" = 0 ] || { echo "two-hosts.sh: run it as root, for it makes network namespaces" >&2; exit 1; }

# Names of our own, so that nothing of yours is touched.
A=weft-example-$$-a
B=weft-example-$$-b
WEB=weft-example-$$-web   # a container on host a
CLI=weft-example-$$-cli   # a container on host b
DIR=$(mktemp -d)

step() { printf '\n# %s\n' "$*"; }

# Runs a command on a host: on a, on b. Each has its own state directory and socket, because both share one file system;
# on two machines neither is needed.
on() {
    host=$1
    shift
    printf '%s$ %s\n' "${host##*-}" "$*"
    ip netns exec "$host" env WEFT_STATE_DIR="$DIR/$host" WEFT_SOCKET="$DIR/$host.sock" "$@"
}

# Whatever happens: stop the routers and remove the namespaces, with every device in them.
clean() {
    for host in "$A" "$B"; do
        ip netns exec "$host" env WEFT_STATE_DIR="$DIR/$host" WEFT_SOCKET="$DIR/$host.sock" \
            "$WEFT" reset --force >/dev/null 2>&1 || true
    done
    for name in "$WEB" "$CLI" "$A" "$B"; do
        ip netns delete "$name" 2>/dev/null || true
    done
    rm -rf "$DIR"
}
trap clean EXIT
trap 'exit 130' INT TERM

step "1. Two hosts, and a cable between them."
for name in "$A" "$B" "$WEB" "$CLI"; do
    ip netns add "$name"
    ip -n "$name" link set lo up
done
ip link add name eth0 netns "$A" type veth peer name eth0 netns "$B"
ip -n "$A" address add 192.0.2.1/24 dev eth0
ip -n "$B" address add 192.0.2.2/24 dev eth0
ip -n "$A" link set eth0 up
ip -n "$B" link set eth0 up

step "2. They reach each other, in clear."
on "$A" ping -q -c 1 -w 5 192.0.2.2 | tail -n 2

step "3. The first host begins a mesh. It prints the line that the next one needs; scripts ask for a token alone."
on "$A" "$WEFT" up --name a
TOKEN=$(ip netns exec "$A" env WEFT_SOCKET="$DIR/$A.sock" "$WEFT" token create)

step "4. The second host joins. The command returns when an encrypted full-size packet has passed both ways."
# A token in the environment is seen by nobody; one on the command line is seen by whoever lists processes.
printf 'b$ weft join 192.0.2.1   (with the token in WEFT_TOKEN)\n'
ip netns exec "$B" env WEFT_STATE_DIR="$DIR/$B" WEFT_SOCKET="$DIR/$B.sock" WEFT_TOKEN="$TOKEN" \
    "$WEFT" join 192.0.2.1 --name b

step "5. How things stand, seen from the second host."
on "$B" "$WEFT" status

step "6. The hosts themselves have addresses on the mesh."
on "$B" "$WEFT" ping a

step "7. A container on each host is put on the mesh. Any namespace will do; here they are named ones."
on "$A" "$WEFT" attach --address 10.32.200.1/12 "$WEB"
on "$B" "$WEFT" attach --address 10.32.200.2/12 "$CLI"

step "8. The containers reach each other, across the cable, encrypted."
ip netns exec "$CLI" ping -c 3 -i 0.2 -w 10 10.32.200.1

step "9. Programs read the same figures: what crossed the cable, and how it was sealed."
on "$B" "$WEFT" status wire -o json

step "10. Leaving. The state of a host goes with 'reset'; 'down' only stops its router."
on "$B" "$WEFT" leave
on "$A" "$WEFT" down

step "Done. Everything made here is removed."
