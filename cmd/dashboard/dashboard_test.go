package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// As InfluxDB 1.8.3 answers for one host.
const twoPoints = `{"results":[
{"statement_id":0,"series":[{"name":"cpu","tags":{"host":"a"},"columns":["time","usage_idle","usage_user","usage_system","usage_iowait"],
 "values":[[1000,90,7,3,0],[2000,null,1,1,0],[3000,25.5,60,14,0.5]]}]},
{"statement_id":1,"series":[{"name":"mem","tags":{"host":"a"},"columns":["time","last","total"],"values":[[3000,1024,4096]]}]},
{"statement_id":2,"series":[{"name":"system","tags":{"host":"a"},"columns":["time","last","n_cpus","uptime"],"values":[[3000,0.5,2,77]]}]}]}`

// fakeInflux answers every query with body and keeps the last query.
func fakeInflux(t *testing.T, status int, body string) (*Influx, *string) {
	var asked string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.FormValue("db") + ": " + r.FormValue("q")
		w.WriteHeader(status)
		io.WriteString(w, body)
	}))
	t.Cleanup(srv.Close)
	return &Influx{URL: srv.URL + "/", Database: "telegraf"}, &asked
}

func ask(t *testing.T, in *Influx, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	handler(in).ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

func TestReadings(t *testing.T) {
	in, asked := fakeInflux(t, 200, twoPoints)
	r, err := in.Read(context.Background(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if r.Points != 2 || len(r.Hosts) != 1 || len(r.Hosts[0].CPU) != 2 {
		t.Fatalf("got %+v, want 2 points of 1 host: a null is no point", r)
	}
	h := r.Hosts[0]
	if p := h.CPU[1]; p != (CPU{Time: 3000, Busy: 74.5, User: 60, System: 14, IOWait: 0.5}) {
		t.Errorf("second point is %+v", p)
	}
	if h.Memory == nil || *h.Memory != (Memory{Used: 1024, Total: 4096}) || h.Load1 != 0.5 || h.Cores != 2 || h.Uptime != 77 {
		t.Errorf("host is %+v", h)
	}
	if !strings.HasPrefix(*asked, "telegraf: SELECT") || !strings.Contains(*asked, "now() - 60s") {
		t.Errorf("asked %q", *asked)
	}
}

func TestNothingWrittenYet(t *testing.T) {
	for _, body := range []string{
		`{"results":[{"statement_id":0,"error":"database not found: telegraf"}]}`,
		`{"results":[{"statement_id":0},{"statement_id":1},{"statement_id":2}]}`,
	} {
		in, _ := fakeInflux(t, 200, body)
		code, got := ask(t, in, "/api/cpu")
		var a answer
		if err := json.Unmarshal([]byte(got), &a); err != nil || code != 200 || a.Points != 0 || a.Error != "" || a.Hosts == nil {
			t.Errorf("%s: got %d %s, %v", body, code, got, err)
		}
	}
}

func TestTrouble(t *testing.T) {
	gone := httptest.NewServer(nil)
	gone.Close()
	refusing, _ := fakeInflux(t, 401, `{"error":"unable to parse authentication credentials"}`)
	failing, _ := fakeInflux(t, 200, `{"results":[{"statement_id":0,"error":"timeout"}]}`)
	other, _ := fakeInflux(t, 200, `<html>`)
	for name, c := range map[string]struct {
		in   *Influx
		want string
	}{
		"gone":     {&Influx{URL: gone.URL}, "does not answer"},
		"refusing": {refusing, "refuses: unable to parse"},
		"failing":  {failing, "refuses: timeout"},
		"other":    {other, "not as InfluxDB 1.x does"},
	} {
		t.Run(name, func(t *testing.T) {
			code, body := ask(t, c.in, "/api/cpu")
			var a answer
			if err := json.Unmarshal([]byte(body), &a); err != nil || code != 502 || !strings.Contains(a.Error, c.want) || strings.Contains(a.Error, "SELECT") {
				t.Errorf("/api/cpu gives %d %s, want 502 and %q", code, body, c.want)
			}
			if code, body := ask(t, c.in, "/"); code != 200 || !strings.Contains(body, c.want) {
				t.Errorf("the page gives %d and lacks %q", code, c.want)
			}
			if code, _ := ask(t, c.in, "/health"); code != 200 {
				t.Errorf("/health gives %d: the dashboard is well, InfluxDB is not", code)
			}
		})
	}
}

func TestPage(t *testing.T) {
	in, asked := fakeInflux(t, 200, strings.ReplaceAll(twoPoints, `"a"`, `"</script><b>"`))
	code, body := ask(t, in, "/?minutes=7")
	if code != 200 || !strings.Contains(body, `"busy":74.5`) || strings.Contains(body, "</script><b>") {
		t.Errorf("got %d, want a page that holds the points, escaped:\n%s", code, body)
	}
	if !strings.Contains(*asked, "now() - 420s") {
		t.Errorf("minutes=7 asked %q", *asked)
	}
	for _, bad := range []string{"0", "61", "x", "-1"} {
		ask(t, in, "/api/cpu?minutes="+bad)
		if !strings.Contains(*asked, "now() - 300s") {
			t.Errorf("minutes=%s asked %q, want 5 minutes", bad, *asked)
		}
	}
	if strings.Contains(body, "src=") || strings.Contains(body, "@import") || strings.Contains(body, "url(") {
		t.Error("the page loads something from elsewhere")
	}
	if code, _ := ask(t, in, "/nothing"); code != 404 {
		t.Errorf("an unknown path gives %d", code)
	}
}

func TestServeStopsCleanly(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := serve(ctx, "127.0.0.1:0", &Influx{}); err != nil {
		t.Error(err)
	}
	if err := serve(ctx, "no such address", &Influx{}); err == nil {
		t.Error("a bad address is no error")
	}
}
