package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Influx asks an InfluxDB 1.x server through its /query endpoint.
type Influx struct {
	URL      string       // "http://influxdb:8086"
	Database string       // "telegraf"
	Client   *http.Client // nil: one that gives up after 3 s
}

// Readings is what the dashboard shows.
type Readings struct {
	Database string `json:"database"`
	Window   int    `json:"window"` // seconds that Hosts cover
	Points   int    `json:"points"` // in all hosts together
	Hosts    []Host `json:"hosts"`
}

// Host holds the readings of one host that runs Telegraf.
type Host struct {
	Name   string  `json:"name"`
	CPU    []CPU   `json:"cpu"` // oldest first
	Memory *Memory `json:"memory,omitempty"`
	Load1  float64 `json:"load1"`
	Cores  int     `json:"cores"` // 0: not known
	Uptime int64   `json:"uptime"`
}

// CPU is one reading of all of a host's cores together, in percent.
type CPU struct {
	Time   int64   `json:"t"` // Unix milliseconds
	Busy   float64 `json:"busy"`
	User   float64 `json:"user"`
	System float64 `json:"system"`
	IOWait float64 `json:"iowait"`
}

// Memory is in bytes.
type Memory struct {
	Used  float64 `json:"used"`
	Total float64 `json:"total"`
}

// Read gives the readings of the last window. No data yet (the database is
// made with Telegraf's first write) is no error: Points is 0.
func (in *Influx) Read(ctx context.Context, window time.Duration) (*Readings, error) {
	seconds := int(window.Seconds())
	since := fmt.Sprintf("time > now() - %ds", seconds)
	results, err := in.query(ctx,
		`SELECT usage_idle, usage_user, usage_system, usage_iowait FROM cpu WHERE cpu = 'cpu-total' AND `+since+` GROUP BY host`,
		`SELECT last(used), total FROM mem WHERE `+since+` GROUP BY host`,
		`SELECT last(load1), n_cpus, uptime FROM system WHERE `+since+` GROUP BY host`)
	if err != nil {
		return nil, err
	}
	r := &Readings{Database: in.Database, Window: seconds, Hosts: []Host{}}
	index := map[string]int{}
	for _, s := range results[0].Series {
		h := Host{Name: s.Tags["host"]}
		for row := range s.Values {
			if idle, ok := s.number(row, "usage_idle"); ok {
				h.CPU = append(h.CPU, CPU{
					Time:   int64(s.or0(row, "time")),
					Busy:   min(100, max(0, 100-idle)),
					User:   s.or0(row, "usage_user"),
					System: s.or0(row, "usage_system"),
					IOWait: s.or0(row, "usage_iowait"),
				})
			}
		}
		if len(h.CPU) == 0 {
			continue
		}
		index[h.Name] = len(r.Hosts)
		r.Hosts = append(r.Hosts, h)
		r.Points += len(h.CPU)
	}
	for _, s := range results[1].Series {
		if i, ok := index[s.Tags["host"]]; ok && len(s.Values) > 0 {
			r.Hosts[i].Memory = &Memory{Used: s.or0(0, "last"), Total: s.or0(0, "total")}
		}
	}
	for _, s := range results[2].Series {
		if i, ok := index[s.Tags["host"]]; ok && len(s.Values) > 0 {
			h := &r.Hosts[i]
			h.Load1, h.Cores, h.Uptime = s.or0(0, "last"), int(s.or0(0, "n_cpus")), int64(s.or0(0, "uptime"))
		}
	}
	return r, nil
}

// The answer's form: docs of InfluxDB 1.8, "InfluxDB API reference", /query.
type result struct {
	Error  string   `json:"error"`
	Series []series `json:"series"`
}

type series struct {
	Tags    map[string]string `json:"tags"`
	Columns []string          `json:"columns"`
	Values  [][]any           `json:"values"`
}

func (s series) number(row int, column string) (float64, bool) {
	for i, c := range s.Columns {
		if c == column && i < len(s.Values[row]) {
			f, ok := s.Values[row][i].(float64)
			return f, ok
		}
	}
	return 0, false
}

func (s series) or0(row int, column string) float64 {
	f, _ := s.number(row, column)
	return f
}

// query runs statements in one request and gives one result for each.
func (in *Influx) query(ctx context.Context, statements ...string) ([]result, error) {
	form := url.Values{"db": {in.Database}, "epoch": {"ms"}, "q": {strings.Join(statements, "; ")}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(in.URL, "/")+"/query?"+form.Encode(), nil)
	if err != nil {
		return nil, fmt.Errorf("cannot ask InfluxDB at %s: %w", in.URL, err)
	}
	client := in.Client
	if client == nil {
		client = &http.Client{Timeout: 3 * time.Second}
	}
	resp, err := client.Do(req)
	if err != nil {
		var ue *url.Error // its text repeats the whole query
		if errors.As(err, &ue) {
			err = ue.Err
		}
		return nil, fmt.Errorf("InfluxDB at %s does not answer: %w", in.URL, err)
	}
	defer resp.Body.Close()
	var answer struct {
		Results []result `json:"results"`
		Error   string   `json:"error"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return nil, fmt.Errorf("%s answers %s, but not as InfluxDB 1.x does: %w", in.URL, resp.Status, err)
	}
	if answer.Error != "" {
		return nil, fmt.Errorf("InfluxDB at %s refuses: %s", in.URL, answer.Error)
	}
	// An error ends the statements: the results after it are not there.
	results := make([]result, len(statements))
	for i, r := range answer.Results {
		if strings.HasPrefix(r.Error, "database not found") {
			break
		}
		if r.Error != "" {
			return nil, fmt.Errorf("InfluxDB at %s refuses: %s", in.URL, r.Error)
		}
		if i < len(results) {
			results[i] = r
		}
	}
	return results, nil
}
