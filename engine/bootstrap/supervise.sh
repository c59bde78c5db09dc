#!/bin/sh
### BEGIN INIT INFO
# Provides:          orch
# Required-Start:    $remote_fs $network
# Required-Stop:     $remote_fs $network
# Should-Start:      docker
# Default-Start:     2 3 4 5
# Default-Stop:      0 1 6
# Short-Description: orch: runs services from playbooks
### END INIT INFO
# Written by orch bootstrap for hosts without systemd: keeps orch running.
# Stopping it leaves the tasks alone.
BIN=@BIN@
DIR=@DIR@
LOG=$DIR/orch.log
PID=$DIR/supervisor.pid
MOST=10485760 # bytes of log before it is rotated
PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH

pid() {
	p=$(cat "$PID" 2>/dev/null) && [ -n "$p" ] && kill -0 "$p" 2>/dev/null &&
		tr '\0' ' ' <"/proc/$p/cmdline" 2>/dev/null | grep -q "orch-supervise run" && echo "$p"
}

rotate() {
	[ "$(wc -c <"$LOG" 2>/dev/null || echo 0)" -gt "$MOST" ] || return 0
	cp "$LOG" "$LOG.1" && : >"$LOG"
}

run() {
	echo $$ >"$PID"
	child= watch=
	trap 'trap - TERM INT; [ -n "$child" ] && kill "$child" 2>/dev/null && wait "$child"; kill $watch 2>/dev/null; rm -f "$PID"; exit 0' TERM INT
	(while sleep 60 & wait $!; do rotate; done) &
	watch=$!
	pause=1
	while :; do
		began=$(date +%s)
		"$BIN" agent --dir "$DIR" >>"$LOG" 2>&1 &
		child=$!
		wait "$child"
		code=$?
		child=
		[ $(($(date +%s) - began)) -gt 60 ] && pause=1
		echo "$(date): orch ended with exit code $code; it is started again in $pause s" >>"$LOG"
		sleep $pause &
		wait $!
		pause=$((pause * 2))
		[ $pause -gt 30 ] && pause=30
	done
}

start() {
	[ -n "$(pid)" ] && return 0
	mkdir -p "$DIR" && chmod 700 "$DIR"
	if command -v setsid >/dev/null 2>&1; then
		setsid /bin/sh "$BIN-supervise" run </dev/null >/dev/null 2>&1 &
	else
		nohup /bin/sh "$BIN-supervise" run </dev/null >/dev/null 2>&1 &
	fi
	i=0
	while [ -z "$(pid)" ]; do
		i=$((i + 1))
		[ $i -gt 100 ] && { echo "orch's supervisor does not start" >&2; return 1; }
		sleep 0.1 2>/dev/null || sleep 1
	done
}

stop() {
	p=$(pid)
	[ -z "$p" ] && return 0
	kill "$p"
	i=0
	while kill -0 "$p" 2>/dev/null; do
		i=$((i + 1))
		[ $i -gt 300 ] && { echo "orch does not end (supervisor $p)" >&2; return 1; }
		sleep 0.1 2>/dev/null || sleep 1
	done
}

case $1 in
run) run ;;
start) start ;;
stop) stop ;;
restart | force-reload) stop && start ;;
status) [ -n "$(pid)" ] ;;
*) echo "usage: $0 start|stop|restart|status" >&2; exit 2 ;;
esac
