# Programs that speak wharf's wire protocol 1, in the POSIX shell: see docs/PROTOCOL.md of wharf.
#
#     . ./wharf-port.sh
#     on_call() { port_reply "$1" "you said: $2"; }
#     port_run greeter 1.0
#
# on_call ID TEXT answers with port_reply or port_fail; on_data TEXT, if there is one, takes what nobody
# answers. What is printed goes to standard error: standard output belongs to the protocol. Payloads
# are texts without NUL of at most 16 KiB, one call at a time. Only built-in commands are used.

# A text as a JSON string, in port_json.
port_quote() {
    port_rest=$1 port_json=
    while [ -n "$port_rest" ]; do
        # Up to the first character that cannot stand for itself.
        port_head=${port_rest%%[\"\\[:cntrl:]]*}
        port_json=$port_json$port_head
        port_rest=${port_rest#"$port_head"}
        [ -n "$port_rest" ] || break
        port_tail=${port_rest#?}
        port_char=${port_rest%"$port_tail"}
        port_rest=$port_tail
        case $port_char in
        \" | \\) port_json=$port_json\\$port_char ;;
        *) port_json=$port_json$(printf '\\u%04x' "'$port_char") ;;
        esac
    done
    port_json=\"$port_json\"
}

# The character with a number, at the end of port_text, as UTF-8.
port_character() {
    if [ "$1" -lt 128 ]; then
        set -- "$(printf '\\%03o' "$1")"
    elif [ "$1" -lt 2048 ]; then
        set -- "$(printf '\\%03o\\%03o' $((192 + $1 / 64)) $((128 + $1 % 64)))"
    elif [ "$1" -lt 65536 ]; then
        set -- "$(printf '\\%03o\\%03o\\%03o' $((224 + $1 / 4096)) $((128 + $1 / 64 % 64)) $((128 + $1 % 64)))"
    else
        set -- "$(printf '\\%03o\\%03o\\%03o\\%03o' $((240 + $1 / 262144)) $((128 + $1 / 4096 % 64)) \
            $((128 + $1 / 64 % 64)) $((128 + $1 % 64)))"
    fi
    # shellcheck disable=SC2059 # it is made of octal numbers; the dot keeps a line feed
    port_char=$(printf "$1.")
    port_text=$port_text${port_char%.}
}

# The inside of a JSON string as a text, in port_text; fails where no variable can hold it.
port_unquote() {
    port_rest=$1 port_text=
    while :; do
        case $port_rest in
        *\\*) ;;
        *) port_text=$port_text$port_rest && return ;;
        esac
        port_head=${port_rest%%\\*}
        port_text=$port_text$port_head
        port_rest=${port_rest#"$port_head"\\}
        port_tail=${port_rest#?}
        port_char=${port_rest%"$port_tail"}
        port_rest=$port_tail
        case $port_char in
        b) port_character 8 ;;
        f) port_character 12 ;;
        n) port_character 10 ;;
        r) port_character 13 ;;
        t) port_character 9 ;;
        u)
            port_tail=${port_rest#????}
            port_code=$((0x${port_rest%"$port_tail"}))
            port_rest=$port_tail
            if [ "$port_code" -ge 55296 ] && [ "$port_code" -lt 56320 ]; then
                # The first half of a pair.
                port_tail=${port_rest#\\u????}
                port_low=${port_rest%"$port_tail"}
                port_rest=$port_tail
                port_code=$((65536 + (port_code - 55296) * 1024 + 0x${port_low#??} - 56320))
            fi
            [ "$port_code" -ne 0 ] || return 1
            port_character "$port_code"
            ;;
        *) port_text=$port_text$port_char ;;
        esac
    done
}

port_write() { printf '%s\n' "$1" >&3; }

# port_reply ID TEXT
port_reply() {
    port_quote "$2"
    port_write "{\"k\":\"reply\",\"id\":$1,\"t\":$port_json}"
}

# port_part ID TEXT: another part of the same answer follows.
port_part() {
    port_quote "$2"
    port_write "{\"k\":\"reply\",\"id\":$1,\"more\":true,\"t\":$port_json}"
}

# port_fail ID CODE MESSAGE [safe|unsafe|never]
port_fail() {
    port_quote "$3"
    port_write "{\"k\":\"error\",\"id\":$1,\"p\":{\"code\":\"$2\",\"message\":$port_json,\"retry\":\"${4:-unsafe}\"}}"
}

# port_send TEXT: says something to whoever listens.
port_send() {
    port_quote "$1"
    port_write "{\"k\":\"data\",\"id\":0,\"t\":$port_json}"
}

# port_log LEVEL TEXT: a line for the program's log.
port_log() {
    port_quote "$2"
    port_write "{\"k\":\"log\",\"id\":0,\"p\":{\"level\":\"$1\",\"message\":$port_json}}"
}

# Whether the keys of a line before its payload are known, where that matters.
port_heeds() {
    case $1 in *'"critical":true'*) ;; *) return 0 ;; esac
    port_rest=$1,
    while [ -n "$port_rest" ]; do
        case ${port_rest%%:*} in
        '"id"' | '"more"' | '"noreply"' | '"critical"' | '"trace"' | '"to"') ;;
        *) return 1 ;;
        esac
        port_rest=${port_rest#*,}
    done
}

# Takes a call or data: KIND KEYS PAYLOAD, the payload as it stands in the line.
port_take() {
    port_id=${2#*'"id":'}
    port_id=${port_id%%[!0-9]*}
    port_text=
    case $3 in
    '') ;;
    t:*) port_unquote "${3#t:}" || set -- "$1" "$2" none ;;
    *) set -- "$1" "$2" none ;;
    esac
    case $1:$2 in
    data:*)
        [ "$3" = none ] || ! command -v on_data >/dev/null || on_data "$port_text" >&2
        return
        ;;
    *'"noreply":true'*)
        [ "$3" = none ] || on_call "$port_id" "$port_text" 3>/dev/null >&2
        return
        ;;
    esac
    if [ "$3" = none ]; then
        port_fail "$port_id" bad_request 'the payload is not a text without NUL' never
    else
        on_call "$port_id" "$port_text" >&2
    fi
}

# port_run NAME VERSION: speaks until the input ends or the manager drains the port, then exits.
port_run() {
    if [ "${PORT_PROTO-}" != 1 ]; then
        printf '%s is a port: run it under wharf, with `port: { protocol: 1 }`\n' "$1" >&2
        exit 2
    fi
    if [ "${PORT_CHANNEL-0,1}" = 3 ]; then
        exec 4<&3
    else
        exec 3>&1 4<&0 </dev/null >&2
    fi
    port_write "{\"k\":\"hello\",\"id\":0,\"p\":{\"proto\":1,\"name\":\"$1\",\"version\":\"$2\",\"enc\":\"text\",\"max_frame\":16384}}"
    while IFS= read -r port_line <&4; do
        case $port_line in
        '{"k":"'*'}') ;;
        '') continue ;;
        *) printf 'cannot go on: a line is no frame: %s\n' "$port_line" >&2 && exit 1 ;;
        esac
        port_line=${port_line%\}}
        port_kind=${port_line#'{"k":"'}
        port_keys=${port_kind#*\",}
        port_kind=${port_kind%%\"*}
        port_payload=
        case $port_keys in
        # The first of them stands outside of any text.
        *,\"p\":* | *,\"t\":* | *,\"b\":*)
            port_head=${port_keys%%,\"[ptb]\":*}
            port_payload=${port_keys#"$port_head",\"}
            port_keys=$port_head
            case $port_payload in
            't":"'*) port_payload=t:${port_payload#'t":"'} && port_payload=${port_payload%\"} ;;
            esac
            ;;
        esac
        if ! port_heeds "$port_keys"; then
            printf 'cannot go on: a critical flag is not known: %s\n' "$port_keys" >&2
            exit 1
        fi
        case $port_kind in
        hello) port_write '{"k":"ready","id":0,"p":{}}' ;;
        call | data) port_take "$port_kind" "$port_keys" "$port_payload" ;;
        ping)
            port_id=${port_keys#*'"id":'}
            port_write "{\"k\":\"pong\",\"id\":${port_id%%[!0-9]*}}"
            ;;
        drain) break ;;
        pong | reply | error | cancel | credit | missed | exit | ready | x-*) ;;
        send | monitor | demonitor | down | link | unlink | spawn | log | metric) ;;
        *) printf 'cannot go on: the kind %s is not known\n' "$port_kind" >&2 && exit 1 ;;
        esac
    done
    port_write '{"k":"exit","id":0,"p":{"reason":"returned"}}'
    exit 0
}
