#!/bin/sh
# A port that greets whoever calls, in two lines; an empty name is an error.
. "$(dirname "$0")/../wharf-port.sh"

on_call() {
    case $2 in
    '') port_fail "$1" bad_request 'whom?' never ;;
    *) port_reply "$1" "good day, $2" ;;
    esac
}

on_data() { port_log info "somebody sent: $1"; }

port_run greeter 0.1.0
