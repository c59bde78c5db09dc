package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"strconv"
	"time"
)

//go:embed page.html
var pageSource string

var page = template.Must(template.New("page").Parse(pageSource))

// answer is the body of /api/cpu; Error is set when InfluxDB is away.
type answer struct {
	*Readings
	Error string `json:"error,omitempty"`
}

// handler serves the page at /, its data at /api/cpu?minutes=N (1 to 60,
// default 5) and /health, which is about the dashboard alone: that InfluxDB
// is away is something to show, not a reason to restart the dashboard.
func handler(source *Influx) http.Handler {
	read := func(r *http.Request, limit time.Duration) (answer, int) {
		ctx, cancel := context.WithTimeout(r.Context(), limit)
		defer cancel()
		minutes, err := strconv.Atoi(r.FormValue("minutes"))
		if err != nil || minutes < 1 || minutes > 60 {
			minutes = 5
		}
		readings, err := source.Read(ctx, time.Duration(minutes)*time.Minute)
		if err != nil {
			slog.Warn("no readings", "err", err)
			return answer{Error: err.Error()}, http.StatusBadGateway
		}
		return answer{Readings: readings}, http.StatusOK
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /api/cpu", func(w http.ResponseWriter, r *http.Request) {
		a, status := read(r, 5*time.Second)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(a) // the client has gone when this fails
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		// Briefly: the page, which asks again, should come at once even
		// where InfluxDB hangs, and health checks ask for it.
		first, _ := read(r, time.Second)
		var body bytes.Buffer
		err := page.Execute(&body, map[string]any{"First": first, "Source": source.URL, "Version": version})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		w.Write(body.Bytes()) // as above
	})
	return mux
}
