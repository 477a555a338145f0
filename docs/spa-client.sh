#!/bin/sh
# Opens a door with one packet (docs/spa.md), where xdp-knock is not installed.
# Needs a POSIX shell with 64-bit arithmetic, openssl, and nc or bash.
# The secret is only ever in this shell's memory and in pipes: never in the arguments of a program.
set -eu
LC_ALL=C

usage() {
    cat >&2 <<'END'
usage: spa-client.sh -k KEYFILE -s SERVER -d DOOR [-t SECONDS] [-a ADDRESS] [-c NANOSECONDS] [-n | HOST PORT]
  -k  file with the secret: 64 hex digits, readable by you alone; `-` is standard input
  -s  the name that the server is configured with ([spa] identity)
  -d  the door's name
  -t  how long to be let in; as long as the door gives if left out
  -a  your address as the server sees it; whoever sends the packet if left out, which the key must be allowed
  -c  the counter, for tests; the time if left out
  -n  print the packet in hex and send nothing
END
    exit 2
}

fail() {
    echo "spa-client.sh: $1" >&2
    exit 1
}

# Bytes from hex digits, in one write: one datagram.
unhex() {
    rest=$1 escaped=
    while [ -n "$rest" ]; do
        after=${rest#??}
        escaped=$escaped\\$(printf '%03o' "0x${rest%"$after"}")
        rest=$after
    done
    printf "$escaped"
}

# Hex digits from bytes.
hex() {
    od -An -v -tx1 | tr -d ' \n'
}

sha256() {
    unhex "$1" | openssl dgst -sha256 -binary | hex
}

# $1, filled up with zeros to a block, with each byte xored with $2.
padded() {
    rest=$1 out= count=0
    while [ "$count" -lt 64 ]; do
        after=${rest#??}
        byte=${rest%"$after"}
        out=$out$(printf '%02x' $((0x${byte:-0} ^ 0x$2)))
        rest=$after count=$((count + 1))
    done
    echo "$out"
}

# HMAC-SHA256 (RFC 2104) of the message $2 under the key $1, both in hex.
hmac() {
    sha256 "$(padded "$1" 5c)$(sha256 "$(padded "$1" 36)$2")"
}

# FNV-1a in 64 bits; the offset basis is written as the signed number that it is to a shell.
fnv() {
    sum=-3750763034362895579
    for byte in $(printf '%s' "$1" | od -An -v -tu1); do
        sum=$(((sum ^ byte) * 0x100000001b3))
    done
    printf '%016x' "$sum"
}

# The number that 8 bytes in hex are, the lowest byte first; missing ones are zero.
word() {
    rest=$1 number=0 shift_by=0
    while [ -n "$rest" ]; do
        after=${rest#??}
        number=$((number | 0x${rest%"$after"} << shift_by))
        rest=$after shift_by=$((shift_by + 8))
    done
    echo "$number"
}

round() {
    v0=$((v0 + v1)) v2=$((v2 + v3))
    v1=$(((v1 << 13 | (v1 >> 51 & 0x1fff)) ^ v0)) v3=$(((v3 << 16 | (v3 >> 48 & 0xffff)) ^ v2))
    v0=$((v0 << 32 | (v0 >> 32 & 0xffffffff)))
    v2=$((v2 + v1)) v0=$((v0 + v3))
    v1=$(((v1 << 17 | (v1 >> 47 & 0x1ffff)) ^ v2)) v3=$(((v3 << 21 | (v3 >> 43 & 0x1fffff)) ^ v0))
    v2=$((v2 << 32 | (v2 >> 32 & 0xffffffff)))
}

# SipHash-1-3 of the message $2 under the key $1, both in hex; the tag's lowest byte first.
siphash() {
    key=$1 message=$2
    k1=$(word "${key#????????????????}")
    k0=$(word "${key%????????????????}")
    v0=$((k0 ^ 0x736f6d6570736575)) v1=$((k1 ^ 0x646f72616e646f6d))
    v2=$((k0 ^ 0x6c7967656e657261)) v3=$((k1 ^ 0x7465646279746573))
    length=$((${#message} / 2)) left=$message
    while [ "${#left}" -ge 16 ]; do
        after=${left#????????????????}
        m=$(word "${left%"$after"}")
        v3=$((v3 ^ m))
        round
        v0=$((v0 ^ m)) left=$after
    done
    m=$(($(word "$left") | length << 56))
    v3=$((v3 ^ m))
    round
    v0=$((v0 ^ m)) v2=$((v2 ^ 0xff))
    round
    round
    round
    tag=$((v0 ^ v1 ^ v2 ^ v3)) count=0
    while [ "$count" -lt 8 ]; do
        printf '%02x' $((tag >> (8 * count) & 0xff))
        count=$((count + 1))
    done
}

# 16 bytes of an address in hex, IPv4 in mapped form.
address() {
    printf '%s\n' "$1" | awk '
        function digits(text, pad) { return substr("0000" text, length(text) + 5 - pad) }
        function dotted(text, part) {
            if (split(text, part, ".") != 4) exit 1
            return sprintf("%02x%02x%02x%02x", part[1], part[2], part[3], part[4])
        }
        function groups(text, part, count, i, out) {
            if (text == "") return ""
            count = split(text, part, ":")
            for (i = 1; i <= count; i++) out = out (part[i] ~ /\./ ? dotted(part[i]) : digits(part[i], 4))
            return out
        }
        !/^[0-9a-fA-F:.]+$/ { exit 1 }
        !/:/ { print "00000000000000000000ffff" dotted($0); next }
        {
            halves = split($0, half, "::")
            if (halves > 2) exit 1
            head = groups(half[1]); tail = halves == 2 ? groups(half[2]) : ""
            while (halves == 2 && length(head tail) < 32) head = head "0"
            if (length(head tail) != 32) exit 1
            print tolower(head tail)
        }'
}

key_file= server= door= seconds=0 source= counter= dry=
while getopts k:s:d:t:a:c:n option; do
    case $option in
    k) key_file=$OPTARG ;;
    s) server=$OPTARG ;;
    d) door=$OPTARG ;;
    t) seconds=$OPTARG ;;
    a) source=$OPTARG ;;
    c) counter=$OPTARG ;;
    n) dry=yes ;;
    *) usage ;;
    esac
done
shift $((OPTIND - 1))
[ -n "$key_file" ] && [ -n "$server" ] && [ -n "$door" ] || usage
[ -n "$dry" ] || [ $# -eq 2 ] || usage

if [ "$key_file" = - ]; then secret=$(cat); else secret=$(cat "$key_file"); fi
case $secret in *[!0-9a-fA-F]*) fail "the secret in $key_file is not 64 hex digits" ;; esac
[ ${#secret} -eq 64 ] || fail "the secret in $key_file is not 64 hex digits"

# Where `date` knows no nanoseconds, seconds do: one packet a second is enough.
if [ -z "$counter" ]; then
    counter=$(date +%s%N)
    case $counter in *[!0-9]*) counter=$(date +%s)000000000 ;; esac
    [ ${#counter} -ge 19 ] || counter=$(date +%s)000000000
fi

flags=00
if [ -n "$source" ]; then
    bytes=$(address "$source") || fail "$source is not an address"
else
    flags=01 bytes=00000000000000000000000000000000
fi

label() {
    printf 'xdp-knock spa 1 %s' "$1" | hex
}
id=$(hmac "$secret" "$(label id)" | cut -c1-16)
covered=01$flags$(printf '%08x' "$seconds")$id$(fnv "$door")$(printf '%016x' "$counter")$(fnv "$server")$bytes
gate=$(siphash "$(hmac "$secret" "$(label gate)" | cut -c1-32)" "$covered")
code=$(hmac "$(hmac "$secret" "$(label code)")" "$covered" | cut -c1-32)
packet=$covered$gate$code

if [ -n "$dry" ]; then
    echo "$packet"
elif command -v nc >/dev/null; then
    unhex "$packet" | nc -u -w1 "$1" "$2"
else
    unhex "$packet" | bash -c 'cat >"/dev/udp/$0/$1"' "$1" "$2"
fi
