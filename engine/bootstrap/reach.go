package bootstrap

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// listen waits for connections on port $1 until its input ends. It is what
// the ways between hosts are tried with before orch is there.
const listen = `
if command -v python3 >/dev/null; then exec python3 -c '
import os, socket, sys, threading
def end():
    sys.stdin.read()
    os._exit(0)
try:
    s = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
except OSError:
    s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("", int(sys.argv[1])))
s.listen(100)
print("listening", flush=True)
threading.Thread(target=end).start()
while True:
    s.accept()[0].close()
' "$1"; fi
if command -v perl >/dev/null; then exec perl -e '
use IO::Socket::INET;
my $s = IO::Socket::INET->new(LocalPort => $ARGV[0], Listen => 100, ReuseAddr => 1) or exit 1;
$| = 1;
print "listening\n";
my $c = fork;
if ($c == 0) { while (my $n = $s->accept) { close $n } exit }
1 while <STDIN>;
kill 9, $c;
' "$1"; fi
exit 1
`

// connect tries host, port, host, port …, all at once, and prints a line each.
const connect = `
try() {
	if command -v bash >/dev/null && command -v timeout >/dev/null; then
		said=$(timeout 5 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$1" "$2" 2>&1); code=$?
	elif command -v python3 >/dev/null; then
		said=$(python3 -c 'import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)' "$1" "$2" 2>&1); code=$?
	elif command -v perl >/dev/null; then
		said=$(perl -MIO::Socket::INET -e 'IO::Socket::INET->new(PeerAddr => $ARGV[0], PeerPort => $ARGV[1], Timeout => 5) or die "$!\n"' "$1" "$2" 2>&1); code=$?
	else
		echo "$1 $2 unknown"; return
	fi
	case "$code $said" in
	0*) echo "$1 $2 ok" ;;
	124*|*"timed out"*) echo "$1 $2 no answer within 5 s" ;;
	*efused*) echo "$1 $2 refused" ;;
	*) echo "$1 $2 $(printf '%s' "$said" | tail -n 1 | sed 's/.*: //')" ;;
	esac
}
while [ $# -gt 1 ]; do try "$1" "$2" & shift 2; done
wait
`

// reach tries, from each host, the way to each engine's port, and puts what it
// finds into Facts.Paths. Where orch isn't there yet, something listens for as
// long as it takes.
func reach(ctx context.Context, all []*Seen, o *Options) {
	var engines []*Seen
	for _, s := range all {
		if s.Facts != nil && s.Role == "engine" && s.address() != "" {
			engines = append(engines, s)
		}
	}
	if len(all) < 2 || len(engines) == 0 {
		return
	}
	listening := map[string]bool{}
	var mu sync.Mutex
	var ends []func()
	each(ctx, o.Parallel, engines, func(e *Seen) {
		if e.Facts.PortTaken {
			return
		}
		end, ok := e.shell.listen(ctx, o.Port)
		mu.Lock()
		defer mu.Unlock()
		ends = append(ends, end)
		listening[e.engineAddress(o.Port)] = ok
	})
	each(ctx, o.Parallel, all, func(s *Seen) {
		if s.Facts == nil {
			return
		}
		var args []string
		for _, e := range engines {
			if e != s {
				args = append(args, e.address(), fmt.Sprint(o.Port))
			}
		}
		out, err := s.shell.output(ctx, connect, nil, args...)
		s.Facts.Paths = map[string]string{}
		if err != nil {
			return
		}
		for line := range strings.Lines(out) {
			words := strings.SplitN(strings.TrimSpace(line), " ", 3)
			if len(words) < 3 {
				continue
			}
			at, how := joinAddress(words[0], words[1]), words[2]
			if tried, known := listening[at]; how == "refused" && known && tried {
				how = "refused, though something listened" // a firewall
			}
			s.Facts.Paths[at] = how
		}
	})
	for _, end := range ends {
		end()
	}
}

func joinAddress(host, port string) string {
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return host + ":" + port
}

// listen starts a listener; ok says that it listens. end takes it away.
func (s *shell) listen(ctx context.Context, port int) (end func(), ok bool) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	in, hold := io.Pipe()
	out, said := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.run(ctx, listen, in, said, fmt.Sprint(port))
		said.Close()
	}()
	line, _ := bufio.NewReader(out).ReadString('\n')
	return func() {
		hold.Close()
		go io.Copy(io.Discard, out) // ends with said
		<-done
		in.Close()
		cancel()
	}, line == "listening\n"
}

// each calls do for all, n at a time, and returns when the last one is done.
func each[T any](ctx context.Context, n int, all []T, do func(T)) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, n)
	for _, one := range all {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if ctx.Err() == nil {
				do(one)
			}
		})
	}
	wg.Wait()
}
