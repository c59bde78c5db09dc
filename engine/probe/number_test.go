package probe_test

import (
	"net/http"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"orch/engine/api"
	"orch/engine/probe"
)

const query = "errors"

type answered struct {
	name   string
	status int
	body   string
	probe  *api.Probe
	ok     bool
	reason string
}

func vector(samples ...string) string {
	return `{"status":"success","data":{"resultType":"vector","result":[` + strings.Join(samples, ",") + `]}}`
}

func TestMetric(t *testing.T) {
	one := func(v string) string {
		return vector(`{"metric":{"__name__":"errors","job":"web"},"value":[1700000000.1,"` + v + `"]}`)
	}
	two := vector(`{"metric":{"job":"b","az":"1"},"value":[1,"1"]}`, `{"metric":{"__name__":"errors","job":"a","az":"1"},"value":[1,"7"]}`)
	scalar := `{"status":"success","data":{"resultType":"scalar","result":[1700000000,"2.5"]}}`
	for _, c := range []answered{
		{"below", 200, one("0.5"), below(1), true, "errors = 0.5, below 1"},
		{"strictly", 200, one("1"), below(1), false, "errors = 1, want it below 1"},
		{"above", 200, one("1.5"), above(1), true, "errors = 1.5, above 1"},
		{"not above", 200, one("-1e-3"), above(0), false, "errors = -0.001, want it above 0"},
		{"between", 200, one("2"), &api.Probe{Below: proto.Float64(3), Above: proto.Float64(1)}, true, "errors = 2, above 1 and below 3"},
		{"not between", 200, one("0"), &api.Probe{Below: proto.Float64(3), Above: proto.Float64(1)}, false, "errors = 0, want it above 1 and below 3"},
		{"zero is a bound", 200, one("0"), below(0), false, "errors = 0, want it below 0"},
		{"scalar", 200, scalar, below(3), true, "errors = 2.5, below 3"},
		{"bad scalar", 200, scalar, below(2), false, "errors = 2.5, want it below 2"},
		{"all", 200, two, below(8), true, "errors: all 2 series are below 8"},
		{"one of two", 200, two, below(5), false, `errors: 1 of 2 series are not below 5: errors{az="1",job="a"} = 7`},
		{"none of two", 200, two, below(1), false, `errors: 2 of 2 series are not below 1: {az="1",job="b"} = 1`},
		{"NaN", 200, one("NaN"), below(1), false, "errors = NaN, want it below 1"},
		{"infinite", 200, one("+Inf"), above(1), true, "errors = +Inf, above 1"},
		{"empty", 200, vector(), below(1), false, "errors: the answer is empty"},
		{"no bounds", 200, one("1"), &api.Probe{}, false, "it says neither below nor above what a number is good"},
		{"matrix", 200, `{"status":"success","data":{"resultType":"matrix","result":[]}}`, below(1), false, "errors: the answer is a matrix, want a scalar or an instant vector"},
		{"histogram", 200, vector(`{"metric":{},"histogram":[1,{"count":"1"}]}`), below(1), false, "errors is no number, want it below 1"},
		{"a number that is none", 200, one("many"), below(1), false, "errors is no number, want it below 1"},
		{"unlike its type", 200, `{"status":"success","data":{"resultType":"vector","result":{}}}`, below(1), false, "errors: the answer is not one of a Prometheus"},
		{"scalar unlike its type", 200, `{"status":"success","data":{"resultType":"scalar","result":"1"}}`, below(1), false, "errors: the answer is not one of a Prometheus"},
		{"its error", 400, `{"status":"error","errorType":"bad_data","error":"1:3: parse error"}`, below(1), false, "GET URL/prom/api/v1/query: 400 Bad Request: bad_data: 1:3: parse error"},
		{"something else's error", 502, "<html>\nno", below(1), false, "GET URL/prom/api/v1/query: 502 Bad Gateway: <html>"},
		{"something else", 200, "hello", below(1), false, "GET URL/prom/api/v1/query: 200 OK, but not the answer of such a database: hello"},
		{"something else's JSON", 200, "{}", below(1), false, "GET URL/prom/api/v1/query: 200 OK, but not the answer of a Prometheus"},
		{"something else's JSON error", 404, `{"message":"no route"}`, below(1), false, "GET URL/prom/api/v1/query: 404 Not Found, but not the answer of a Prometheus"},
		{"too long", 200, strings.Repeat(" ", 1<<20) + "{}", below(1), false, "GET URL/prom/api/v1/query: 200 OK, but longer than 1 MiB: ask for less"},
	} {
		t.Run(c.name, func(t *testing.T) {
			at := server(t, func(w http.ResponseWriter, r *http.Request) {
				if v := r.URL.Query(); r.URL.Path != "/prom/api/v1/query" || v.Get("query") != query || v.Get("tenant") != "x" {
					t.Errorf("asked for %s", r.URL)
				}
				text(c.status, c.body)(w, r)
			})
			c.probe.Type, c.probe.Url, c.probe.Query = "metric", at+"/prom/?tenant=x", query
			ask(t, &probe.Asker{}, at, c.probe, c.ok, c.reason)
		})
	}
}

func results(series ...string) string {
	return `{"results":[{"statement_id":0,"series":[` + strings.Join(series, ",") + `]}]}`
}

func TestInflux(t *testing.T) {
	one := func(rows string) string {
		return results(`{"name":"http","columns":["time","mean"],"values":[` + rows + `]}`)
	}
	two := results(`{"name":"http","tags":{"host":"a"},"columns":["time","mean"],"values":[["t",1]]}`,
		`{"name":"http","tags":{"host":"b"},"columns":["time","min","max"],"values":[["t",1,1],["t",2,7]]}`)
	for _, c := range []answered{
		{"the last", 200, one(`["t0",9],["t1",0.5]`), below(1), true, "errors = 0.5, below 1"},
		{"the last is bad", 200, one(`["t0",0],["t1",9]`), below(1), false, "errors = 9, want it below 1"},
		{"the last column, every series", 200, two, below(8), true, "errors: all 2 series are below 8"},
		{"one of two", 200, two, below(5), false, `errors: 1 of 2 series are not below 5: http{host="b"} = 7`},
		{"null", 200, one(`["t0",0],["t1",null]`), below(1), false, "errors ends with null, want it below 1"},
		{"text", 200, one(`["t0","high"]`), below(1), false, "errors ends with no number, want it below 1"},
		{"no rows", 200, one(``), below(1), false, "errors has no rows, want it below 1"},
		{"no columns", 200, one(`[]`), below(1), false, "errors has no rows, want it below 1"},
		{"partial", 200, `{"results":[{"series":[{"name":"http","values":[["t",0]],"partial":true}]}]}`, below(1), false, "errors has more rows than one answer holds, so the last is unknown, want it below 1"},
		{"empty", 200, `{"results":[{"statement_id":0}]}`, below(1), false, "errors: the answer is empty"},
		{"no bounds", 200, one(`["t0",9]`), &api.Probe{}, false, "it says neither below nor above what a number is good"},
		{"its error", 400, `{"error":"error parsing query"}`, below(1), false, "GET URL/query: 400 Bad Request: error parsing query"},
		{"a statement's error", 200, `{"results":[{"statement_id":0,"error":"database not found: app"}]}`, below(1), false, "GET URL/query: 200 OK: database not found: app"},
		{"something else's JSON", 200, `{}`, below(1), false, "GET URL/query: 200 OK, but not the answer of an InfluxDB"},
	} {
		t.Run(c.name, func(t *testing.T) {
			at := server(t, func(w http.ResponseWriter, r *http.Request) {
				name, password, _ := r.BasicAuth()
				if v := r.URL.Query(); r.URL.Path != "/query" || v.Get("q") != query || v.Get("db") != "app" || name != "me" || password != "secret" {
					t.Errorf("asked for %s", r.URL)
				}
				text(c.status, c.body)(w, r)
			})
			c.probe.Type, c.probe.Url, c.probe.Query, c.probe.Db = "influx", strings.Replace(at, "//", "//me:secret@", 1), query, "app"
			ask(t, &probe.Asker{}, at, c.probe, c.ok, c.reason)
		})
	}
}

func TestLongQueries(t *testing.T) {
	at := server(t, text(200, vector()))
	p := below(1)
	p.Type, p.Url, p.Query = "metric", at, "sum(\n"+strings.Repeat("x", 1000)+")"
	ask(t, &probe.Asker{}, at, p, false, "sum( "+strings.Repeat("x", 192)+"...: the answer is empty")
}
