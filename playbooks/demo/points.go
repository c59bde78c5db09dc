package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

var errNoPoints = errors.New("the dashboard answers, but has no cpu points yet")

// DashboardPoints says how many cpu points the dashboard at base shows, in
// words ("12 cpu points"). The dashboard is our own, or Chronograf.
func DashboardPoints(ctx context.Context, base string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var own struct {
		Points *int
		Error  string
	}
	err := getJSON(ctx, base+"/api/cpu", "", &own)
	switch {
	case err == nil && own.Points != nil && *own.Points > 0:
		return fmt.Sprintf("%d cpu points", *own.Points), nil
	case err == nil && own.Points != nil:
		return "", errNoPoints
	case own.Error != "":
		return "", errors.New(own.Error)
	}
	points, cerr := chronografPoints(ctx, base)
	if errors.Is(cerr, errNotChronograf) {
		if err == nil {
			err = errors.New("the dashboard answers, but not with points")
		}
		return "", err
	}
	return points, cerr
}

var errNotChronograf = errors.New("not Chronograf")

// chronografPoints asks InfluxDB through Chronograf, as its own pages do:
// https://github.com/influxdata/chronograf, server/swagger.json, /sources and
// /sources/{id}/proxy.
func chronografPoints(ctx context.Context, base string) (string, error) {
	var list struct {
		Sources []struct{ Links struct{ Proxy string } }
	}
	if err := getJSON(ctx, base+"/chronograf/v1/sources", "", &list); err != nil || len(list.Sources) == 0 {
		return "", errNotChronograf
	}
	var answer struct {
		Results struct {
			Results []struct {
				Series []struct{ Values [][]any }
			}
		}
	}
	query := `{"db": "telegraf", "epoch": "ms", "query": "SELECT count(usage_user) FROM cpu WHERE time > now() - 5m"}`
	if err := getJSON(ctx, base+list.Sources[0].Links.Proxy, query, &answer); err != nil {
		return "", fmt.Errorf("cannot ask InfluxDB through Chronograf: %w", err)
	}
	for _, r := range answer.Results.Results {
		for _, s := range r.Series {
			if len(s.Values) > 0 && len(s.Values[0]) == 2 {
				return fmt.Sprintf("%v cpu points", s.Values[0][1]), nil
			}
		}
	}
	return "", errNoPoints
}

// getJSON decodes the answer to a GET, or to a POST of body, into out, also
// where the status is an error.
func getJSON(ctx context.Context, url, body string, out any) error {
	method := http.MethodGet
	if body != "" {
		method = http.MethodPost
	}
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	decoded := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(out)
	if resp.StatusCode >= 300 {
		return fmt.Errorf("%s answers %s", url, resp.Status)
	}
	return decoded
}
