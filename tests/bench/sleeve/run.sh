#!/bin/bash
# Compares one TCP stream through the sleeve with one through kernel VXLAN, between containers on two hosts.
#
#   run.sh [ROUNDS [SECONDS]]        needs root, ip, iperf3, and the program built with --release
#
# Each host is a network namespace, each container another; every contender has its own bridge and container pair, and
# all are up at once. In each round every contender runs once, in random order; the ratio is taken inside the round, and
# the median of the ratios is what counts (Gbit/s of one run mean nothing).
#
#   OFFLOAD=off   switches segmentation offload off on the underlay, as on a plain network card
#   STREAMS=n     n parallel streams          UDP=1  200-byte datagrams, in packets per second
#   CONTENDERS    which to run, of: vxlan aes chacha plain, relay (aes over a third host), old (aes, by the program $OLD)
set -eu
rounds=${1:-5} seconds=${2:-3}
here=$(cd "$(dirname "$0")" && pwd)
program=${CARGO_TARGET_DIR:-$here/target}/release/weft-bench-sleeve
read -ra contenders <<<"${CONTENDERS:-vxlan aes chacha}"
id=wb$$
work=$(mktemp -d)
children=()

finish() {
    for fd in "${fds[@]}"; do echo >&"$fd"; done
    sleep 0.2
    for pid in "${children[@]}"; do kill "$pid" 2>/dev/null || :; wait "$pid" 2>/dev/null || :; done
    for ns in "${spaces[@]}"; do ip netns del "$ns" 2>/dev/null || :; done
    [ -z "${KEEP_LOGS:-}" ] || cat "$work"/*.err >&2
    rm -rf "$work"
}
spaces=() fds=()
trap finish EXIT

space() { ip netns add "$1"; spaces+=("$1"); ip -n "$1" link set lo up; }
mac() { echo "02:00:00:00:$(printf %02x "$1"):0$(($2 + 1))"; }

space $id-h0; space $id-h1
ip link add under0 netns $id-h0 type veth peer name under0 netns $id-h1
for side in 0 1; do
    ip -n $id-h$side addr add 192.0.2.$((side + 1))/24 dev under0
    ip -n $id-h$side link set under0 up
    if [ "${OFFLOAD:-on}" = off ]; then
        ip netns exec $id-h$side ethtool -K under0 tso off gso off gro off tx-udp-segmentation off >/dev/null
    fi
done

# A bridge and a container on it: contender number, its name, MTU.
place() {
    local number=$1 name=$2 mtu=$3 side
    for side in 0 1; do
        local host=$id-h$side container=$id-$name$side
        space "$container"
        ip -n "$host" link add "br-$name" type bridge forward_delay 0 stp_state 0 mcast_snooping 0
        ip -n "$host" link add "p-$name" mtu "$mtu" type veth peer name eth0 mtu "$mtu" netns "$container"
        ip -n "$host" link set "p-$name" master "br-$name" up
        ip -n "$host" link set "br-$name" mtu "$mtu" up
        ip -n "$container" link set eth0 address "$(mac "$number" $side)" up
        ip -n "$container" addr add 10.40.0.$((side + 1))/24 dev eth0
    done
}

# Starts one end: its namespace, then what the program is told.
launch() {
    local space=$1 program=$2 side=$3 name=$4; shift 4
    local pipe=$work/$name$side
    mkfifo "$pipe"
    ip netns exec "$space" "$program" "$side" "t-$name" "$@" <"$pipe" >"$pipe.out" 2>"$pipe.err" &
    children+=($!)
    local fd; exec {fd}>"$pipe"; fds+=("$fd")
    until grep -q ready "$pipe.out"; do sleep 0.05; done
}

sleeve() {
    local number=$1 name=$2 cipher=$3 program=$4 third=${5:-} side
    local port=$((7000 + number))
    place "$number" "$name" 1350
    for side in 0 1; do
        local other=$((1 - side)) address=192.0.2.$((side + 1))
        [ -z "$third" ] || address=198.51.100.$((side * 4 + 1))
        launch $id-h$side "$program" $side "$name" $address:$port 192.0.2.$((other + 1)):$port \
            1472 "$cipher" "$(mac "$number" $side)" "$(mac "$number" $other)" \
            ${third:+198.51.100.$((side * 4 + 2)):$port}
        ip -n $id-h$side link set "t-$name" mtu 1350 master "br-$name" up
        bridge -n $id-h$side link set dev "t-$name" isolated on mcast_router 2 2>/dev/null || :
    done
}

# A third host, with a cable to each of the two.
relay() {
    local number=$1 side
    local port=$((7000 + number))
    space $id-h2
    for side in 0 1; do
        ip link add under1 netns $id-h$side type veth peer name under$side netns $id-h2
        ip -n $id-h$side addr add 198.51.100.$((side * 4 + 1))/30 dev under1
        ip -n $id-h2 addr add 198.51.100.$((side * 4 + 2))/30 dev under$side
        ip -n $id-h$side link set under1 up
        ip -n $id-h2 link set under$side up
    done
    launch $id-h2 "$program" 2 relay 0.0.0.0:$port 198.51.100.1:$port 1472 aes "$(mac "$number" 0)" "$(mac "$number" 1)" \
        198.51.100.5:$port
    sleeve "$number" relay aes "$program" third
}

number=0
for name in "${contenders[@]}"; do
    number=$((number + 1))
    case $name in
    aes | chacha) sleeve $number $name $name "$program" ;;
    old) sleeve $number old aes "$OLD" ;;
    relay) relay $number ;;
    vxlan)
        place $number vxlan 1450
        for side in 0 1; do
            ip -n $id-h$side link add vx0 mtu 1450 type vxlan id 7 dstport 4790 local 192.0.2.$((side + 1)) \
                remote 192.0.2.$((2 - side))
            ip -n $id-h$side link set vx0 master br-vxlan up
        done ;;
    plain) ;;
    *) echo "no contender is called $name" >&2; exit 2 ;;
    esac
done

# Where a contender's ends are: namespace of each, and the address of the second.
ends() { if [ "$1" = plain ]; then echo $id-h0 $id-h1 192.0.2.2; else echo $id-${1}0 $id-${1}1 10.40.0.2; fi; }

for name in "${contenders[@]}"; do
    read -r from to address <<<"$(ends "$name")"
    ip netns exec "$to" iperf3 -s >/dev/null 2>&1 &
    children+=($!)
    for _ in $(seq 50); do ip netns exec "$from" ping -qc1 -W1 "$address" >/dev/null 2>&1 && break; done
done
sleep 0.5

measure() {
    local from to address
    read -r from to address <<<"$(ends "$1")"
    if [ "${UDP:-0}" = 1 ]; then
        ip netns exec "$from" iperf3 -c "$address" -t "$seconds" -u -b 0 -l 200 -f k |
            awk '/receiver/ { for (i = 1; i < NF; i++) if ($(i + 1) == "Kbits/sec") print $i / 1.6 }'
    else
        ip netns exec "$from" iperf3 -c "$address" -t "$seconds" -P "${STREAMS:-1}" -f k |
            awk '/receiver/ { for (i = 1; i < NF; i++) if ($(i + 1) == "Kbits/sec") v = $i / 1e6 } END { print v }'
    fi
}

for round in $(seq "$rounds"); do
    declare -A result=()
    for name in $(printf '%s\n' "${contenders[@]}" | shuf); do result[$name]=$(measure "$name"); done
    line="round $round:"
    for name in "${contenders[@]}"; do
        line+=" $name ${result[$name]}"
        [ "$name" = vxlan ] || echo "$name $(awk "BEGIN { print ${result[$name]} / ${result[vxlan]:-1} }")" >>"$work/ratios"
    done
    echo "$line"
done
for name in "${contenders[@]}"; do
    [ "$name" = vxlan ] || awk -v n="$name" '$1 == n { print $2 }' "$work/ratios" | sort -g |
        awk -v n="$name" '{ v[NR] = $1 } END { printf "%s: %.3f x VXLAN (median of %d; %.3f to %.3f)\n", n, v[int((NR + 1) / 2)], NR, v[1], v[NR] }'
done
for name in "${contenders[@]}"; do
    read -r from _ address <<<"$(ends "$name")"
    ip netns exec "$from" ping -qc 200 -i 0.005 "$address" | awk -v n="$name" -F/ '/rtt/ { print n ": ping " $5 " ms" }'
done
