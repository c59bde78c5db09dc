package main

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMain makes the test binary stand in for orch where FAKE_ORCH says how
// it is to behave.
func TestMain(m *testing.M) {
	if how := os.Getenv("FAKE_ORCH"); how != "" {
		os.Exit(fakeOrch(how))
	}
	os.Exit(m.Run())
}

func fakeOrch(how string) int {
	fmt.Println("fake orch:", strings.Join(os.Args[1:], " "))
	if how == "dies" {
		return 3
	}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt)
	port := ""
	for _, a := range os.Args {
		if p, ok := strings.CutPrefix(a, "dashboard_port="); ok {
			port = p
		}
	}
	started := time.Now()
	go http.ListenAndServe("127.0.0.1:"+port, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if how == "empty" || time.Since(started) < 100*time.Millisecond {
			fmt.Fprintln(w, `{"points": 0}`)
		} else {
			fmt.Fprintln(w, `{"points": 7}`)
		}
	}))
	<-interrupted
	if how == "unwell" {
		return 1
	}
	return 0
}

func TestCheck(t *testing.T) {
	for how, want := range map[string]string{
		"well":   "",
		"dies":   "orch ended before the dashboard had points: exit status 3",
		"unwell": "orch did not end well after SIGINT: exit status 1",
		"empty":  "no cpu points within 1s; last: the dashboard answers, but has no cpu points yet",
	} {
		t.Run(how, func(t *testing.T) {
			t.Setenv("FAKE_ORCH", how)
			dir := t.TempDir()
			run := &Run{
				Orch: os.Args[0], Playbook: "x.star", Params: Params{"runtime": "process"},
				Home: filepath.Join(dir, "state"), Path: filepath.Join(dir, "bin"), Port: freePort(t), Say: t.Logf,
			}
			limit := 30 * time.Second
			if how == "empty" {
				limit = time.Second
			}
			err := run.Check(context.Background(), limit, nil)
			if want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Fatalf("got %v, want %q", err, want)
			}
			if !strings.Contains(err.Error(), "fake orch: run x.star --set dashboard_port=") {
				t.Errorf("%v lacks orch's output", err)
			}
		})
	}
}

func TestCheckRefusesATakenPort(t *testing.T) {
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dir := t.TempDir()
	run := &Run{Orch: os.Args[0], Home: filepath.Join(dir, "state"), Path: filepath.Join(dir, "bin"),
		Port: l.Addr().(*net.TCPAddr).Port, Say: t.Logf}
	if err := run.Check(context.Background(), time.Second, nil); err == nil || !strings.Contains(err.Error(), "is needed for the dashboard") {
		t.Errorf("got %v", err)
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func TestChronografsPoints(t *testing.T) {
	body := `{"results":{"results":[{"statement_id":0,"series":[{"name":"cpu","columns":["time","count"],"values":[[0,42]]}]}]}}`
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "<html>") })
	mux.HandleFunc("GET /chronograf/v1/sources", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, `{"sources":[{"id":"0","links":{"proxy":"/chronograf/v1/sources/0/proxy"}}]}`)
	})
	mux.HandleFunc("POST /chronograf/v1/sources/0/proxy", func(w http.ResponseWriter, r *http.Request) {
		var q struct{ DB, Query string }
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil || q.DB != "telegraf" {
			t.Errorf("asked %+v, %v", q, err)
		}
		io.WriteString(w, body)
	})
	srv := httptest.NewServer(mux)
	defer srv.Close()
	if got, err := DashboardPoints(context.Background(), srv.URL); err != nil || got != "42 cpu points" {
		t.Errorf("got %q, %v", got, err)
	}
	body = `{"results":{"results":[{"statement_id":0}]}}`
	if _, err := DashboardPoints(context.Background(), srv.URL); err != errNoPoints {
		t.Errorf("got %v, want %v", err, errNoPoints)
	}
}

func TestRoot(t *testing.T) {
	program := filepath.Join(t.TempDir(), "prog")
	if err := os.WriteFile(program, []byte("binary"), 0o700); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := writeRoot(&b, program, []string{"var/lib/data/"}); err != nil {
		t.Fatal(err)
	}
	modes := map[string]int64{}
	for r := tar.NewReader(&b); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		modes[h.Name] = h.Mode
	}
	for name, want := range map[string]int64{"./": 0o755, "tmp/": 0o1777, "var/lib/data/": 0o755, "etc/passwd": 0o644, "usr/bin/prog": 0o755} {
		if modes[name] != want {
			t.Errorf("%s has mode %o, want %o", name, modes[name], want)
		}
	}
}

// fakeDocker answers on a unix socket as a daemon that has the given images,
// and whose registry has others.
func fakeDocker(t *testing.T, local, registry map[string]bool) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /_ping", func(w http.ResponseWriter, r *http.Request) {})
	mux.HandleFunc("GET /images/", func(w http.ResponseWriter, r *http.Request) {
		if !local[strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/images/"), "/json")] {
			w.WriteHeader(404)
		}
	})
	mux.HandleFunc("GET /distribution/", func(w http.ResponseWriter, r *http.Request) {
		if !registry[strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/distribution/"), "/json")] {
			w.WriteHeader(500)
		}
	})
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, `{"Os": "plan9", "Arch": "mips"}`)
	})
	mux.HandleFunc("POST /images/create", func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("tag") == "1.37" {
			io.WriteString(w, `{"status":"Pulling"}`+"\n"+`{"error":"no space left"}`)
		}
	})
	srv := &http.Server{Handler: mux}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	t.Setenv("DOCKER_HOST", "unix://"+socket)
}

func TestImagesAreFoundInOrder(t *testing.T) {
	p := func() *Preparer { return &Preparer{Cache: t.TempDir(), Runtime: "docker", Say: t.Logf} }
	t.Run("official, own, pulled", func(t *testing.T) {
		fakeDocker(t, map[string]bool{"influxdb:1.8": true, "orch-demo/telegraf:1.37.2": true}, map[string]bool{"chronograf:1.10": true, "telegraf:1.37": true})
		params, err := p().Prepare(context.Background())
		want := "--set dashboard_image=chronograf:1.10 --set influxdb_image=influxdb:1.8 --set runtime=docker --set telegraf_image=orch-demo/telegraf:1.37.2"
		if got := strings.Join(params.Args(), " "); err != nil || got != want {
			t.Errorf("got %s, %v", got, err)
		}
	})
	t.Run("a pull that fails falls back to a build", func(t *testing.T) {
		fakeDocker(t, map[string]bool{"influxdb:1.8": true, "chronograf:1.10": true}, map[string]bool{"telegraf:1.37": true})
		_, err := p().Prepare(context.Background())
		if err == nil || !strings.Contains(err.Error(), "plan9/mips programs can't be built") {
			t.Errorf("got %v", err)
		}
	})
}

func TestNoDocker(t *testing.T) {
	t.Setenv("DOCKER_HOST", "unix://"+filepath.Join(t.TempDir(), "none"))
	p := &Preparer{Cache: t.TempDir(), Runtime: "docker", Say: t.Logf}
	if _, err := p.Prepare(context.Background()); err == nil || !strings.Contains(err.Error(), "no Docker at ") {
		t.Errorf("got %v", err)
	}
	p.Runtime = "podman"
	if _, err := p.Prepare(context.Background()); err == nil || !strings.Contains(err.Error(), `unknown runtime "podman"`) {
		t.Errorf("got %v", err)
	}
}
