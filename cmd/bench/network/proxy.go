package network

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"orch/agent/ingress"
	"orch/engine/api"
)

// Children are this program again, with one of these as its first argument.
const (
	backendArg = "bench-backend" // PORT
	ingressArg = "bench-ingress" // TCP-PORT HTTP-PORT BACKEND-PORT...
)

// IsChild says that a program called with args (os.Args) is to be a child.
func IsChild(args []string) bool {
	return len(args) > 2 && (args[1] == backendArg || args[1] == ingressArg)
}

// ChildMain is a child's whole life.
func ChildMain() {
	raiseLimit()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if os.Args[1] == backendArg {
		body := []byte(strings.Repeat("x", 200))
		server := &http.Server{Addr: "127.0.0.1:" + os.Args[2], Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(body) })}
		go server.ListenAndServe()
		<-ctx.Done()
		return
	}
	p := &ingress.Publisher{Logger: slog.New(slog.DiscardHandler)}
	var targets []*api.Target
	for i, port := range os.Args[4:] {
		targets = append(targets, &api.Target{TaskId: strconv.Itoa(i), Address: "127.0.0.1:" + port, Version: "v"})
	}
	number := func(text string) uint32 { n, _ := strconv.Atoi(text); return uint32(n) }
	p.Publish([]*api.Route{
		{HostIp: "127.0.0.1", Port: number(os.Args[2]), Protocol: "tcp", Targets: targets, Service: "s/web"},
		{HostIp: "127.0.0.1", Port: number(os.Args[3]), Protocol: "http", Targets: targets, Service: "s/web"}})
	_ = p.Run(ctx)
}

// raiseLimit lets this process, and those that it starts, have many connections.
// Where it may not, HAProxy says how many it wants.
func raiseLimit() {
	_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1 << 18, Max: 1 << 18})
}

// rig is two backends, with HAProxy and orch's ingress before them.
type rig struct {
	dir      string
	children []*exec.Cmd
	pids     map[string]int    // of the proxies
	at       map[string]string // address by what listens there
}

func newRig(ctx context.Context) (r *rig, err error) {
	raiseLimit()
	r = &rig{pids: map[string]int{}, at: map[string]string{}}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	if r.dir, err = os.MkdirTemp("", "orch-bench-"); err != nil {
		return nil, err
	}
	ports := map[string]string{}
	var chosen []net.Listener // kept until all are, so that none is chosen twice
	for _, name := range []string{"backend 1", "backend 2", "haproxy tcp", "haproxy http", "orch tcp", "orch http"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		_, ports[name], _ = net.SplitHostPort(l.Addr().String())
		chosen = append(chosen, l)
		r.at[name] = l.Addr().String()
	}
	config := fmt.Sprintf(`global
    maxconn 8000
    nbthread %d
defaults
    timeout connect 5s
    timeout client 5m
    timeout server 5m
frontend t
    mode tcp
    bind 127.0.0.1:%s
    default_backend t
frontend h
    mode http
    option forwardfor
    bind 127.0.0.1:%s
    default_backend h
backend t
    mode tcp
    balance leastconn
    server a 127.0.0.1:%s
    server b 127.0.0.1:%s
backend h
    mode http
    balance leastconn
    http-reuse always
    server a 127.0.0.1:%s
    server b 127.0.0.1:%s
`, 2, ports["haproxy tcp"], ports["haproxy http"], ports["backend 1"], ports["backend 2"], ports["backend 1"], ports["backend 2"])
	file := filepath.Join(r.dir, "haproxy.cfg")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	for _, l := range chosen {
		l.Close()
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	for _, c := range []struct {
		name string
		argv []string
	}{
		{"", []string{self, backendArg, ports["backend 1"]}}, {"", []string{self, backendArg, ports["backend 2"]}},
		{"haproxy", []string{"haproxy", "-db", "-f", file}},
		{"orch", []string{self, ingressArg, ports["orch tcp"], ports["orch http"], ports["backend 1"], ports["backend 2"]}},
	} {
		cmd := exec.CommandContext(ctx, c.argv[0], c.argv[1:]...)
		cmd.Stderr = os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		r.children = append(r.children, cmd)
		if c.name != "" {
			r.pids[c.name] = cmd.Process.Pid
		}
	}
	return r, nil
}

// ready waits until everything listens.
func (r *rig) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for name, at := range r.at {
		for {
			c, err := net.Dial("tcp", at)
			if err == nil {
				c.Close()
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("%s: %w", name, err)
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	return nil
}

func (r *rig) close() {
	for _, c := range r.children {
		_ = c.Process.Kill()
		_ = c.Wait()
	}
	_ = os.RemoveAll(r.dir)
}

// load is requests a second, by wrk.
func (b *bench) load(ctx context.Context, at string, close bool) (float64, error) {
	args := []string{"-t1", "-c64", fmt.Sprintf("-d%ds", b.Seconds)}
	if close {
		args = append(args, "-H", "Connection: close")
	}
	out, err := exec.CommandContext(ctx, "wrk", append(args, "http://"+at+"/")...).CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("wrk: %w: %s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "Requests/sec:"); ok {
			return strconv.ParseFloat(strings.TrimSpace(rest), 64)
		}
		if strings.Contains(line, "Non-2xx") {
			return 0, fmt.Errorf("wrk: %s", line)
		}
	}
	return 0, fmt.Errorf("wrk said %s", out)
}

// proxies asks each proxy in turn, round by round, so that all see the same
// noise.
func (b *bench) proxies(ctx context.Context) error {
	r, err := newRig(ctx)
	if err != nil {
		return err
	}
	defer r.close()
	if err := r.ready(ctx); err != nil {
		return err
	}
	for _, close := range []bool{false, true} {
		got := map[string][]float64{}
		for range b.Rounds {
			for _, who := range []string{"backend 1", "haproxy tcp", "orch tcp", "haproxy http", "orch http"} {
				n, err := b.load(ctx, r.at[who], close)
				if err != nil {
					return fmt.Errorf("%s: %w", who, err)
				}
				got[who] = append(got[who], n)
			}
		}
		kind, goal := "connections kept", "0.8"
		if close {
			kind, goal = "a connection each", ""
		}
		for _, mode := range []string{"tcp", "http"} {
			o, h := median(got["orch "+mode]), median(got["haproxy "+mode])
			b.rows = append(b.rows, row{fmt.Sprintf("%s, %s: requests/s, beside HAProxy", mode, kind), fmt.Sprintf("%.0f", o), fmt.Sprintf("%.0f", h), fmt.Sprintf("%.2f", o/h), goal})
		}
		direct := median(got["backend 1"])
		b.rows = append(b.rows, row{fmt.Sprintf("tcp, %s: requests/s, beside no proxy", kind), fmt.Sprintf("%.0f", median(got["orch tcp"])), fmt.Sprintf("%.0f", direct), fmt.Sprintf("%.2f", median(got["orch tcp"])/direct), ""})
	}
	return nil
}

// manyIdle leave room below the 20,000 files that a process may often have open.
const manyIdle = 7_500

// idle holds many connections open through each proxy, and looks at its memory.
func (b *bench) idle(ctx context.Context) error {
	for _, mode := range []string{"tcp", "http"} {
		grown := map[string]float64{}
		for _, who := range []string{"orch", "haproxy"} {
			r, err := newRig(ctx)
			if err != nil {
				return err
			}
			if err = r.ready(ctx); err == nil {
				grown[who], err = r.hold(ctx, who, mode)
			}
			r.close()
			if err != nil {
				return fmt.Errorf("%s %s: %w", who, mode, err)
			}
		}
		b.rows = append(b.rows, row{mode + ": memory a 10,000 idle connections, beside HAProxy", mib(grown["orch"]), mib(grown["haproxy"]), fmt.Sprintf("%.2f", grown["orch"]/grown["haproxy"]), ""})
	}
	return nil
}

// mib is what 10,000 would take, were they alike.
func mib(grown float64) string {
	return fmt.Sprintf("%.0f MiB", grown/manyIdle*10_000/(1<<20))
}

// hold opens the connections, has one request answered on each, and gives by
// how many bytes the proxy has grown.
func (r *rig) hold(ctx context.Context, who, mode string) (float64, error) {
	before, err := resident(r.pids[who])
	if err != nil {
		return 0, err
	}
	var all []net.Conn
	defer func() {
		for _, c := range all {
			c.Close()
		}
	}()
	answer := make([]byte, 4096)
	for i := range manyIdle {
		// One address has too few ports for so many.
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+i%100))}}
		c, err := d.DialContext(ctx, "tcp", r.at[who+" "+mode])
		if err != nil {
			return 0, fmt.Errorf("after %d: %w", i, err)
		}
		all = append(all, c)
		if _, err := c.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
			return 0, err
		}
		if _, err := c.Read(answer); err != nil {
			return 0, fmt.Errorf("after %d: %w", i, err)
		}
	}
	after, err := resident(r.pids[who])
	return after - before, err
}

func resident(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text))
	pages, err := strconv.Atoi(fields[1])
	return float64(pages * os.Getpagesize()), err
}
