package probe

import (
	"context"
	"errors"
	"net/http"
	"net/url"

	"orch/engine/api"
)

// influxdb is the answer to an InfluxQL query of InfluxDB 1.x, see
// https://docs.influxdata.com/influxdb/v1/tools/api/#query-http-endpoint
type influxdb struct {
	Error   string `json:"error"`
	Results []struct {
		Error   string `json:"error"`
		Partial bool   `json:"partial"`
		Series  []struct {
			Name    string            `json:"name"`
			Tags    map[string]string `json:"tags"`
			Values  [][]any           `json:"values"`
			Partial bool              `json:"partial"`
		} `json:"series"`
	} `json:"results"`
}

// influx is a probe of that type: an InfluxQL query, of which the last column
// of the last row must be within bounds, in every series.
func (a *Asker) influx(ctx context.Context, p *api.Probe) (string, error) {
	if !bounded(p) {
		return "", errBoundless
	}
	var said influxdb
	answer, err := a.query(ctx, p, "query", url.Values{"db": {p.Db}, "q": {p.Query}}, &said)
	switch {
	case err != nil:
		return "", err
	case said.Error != "":
		return "", errors.New(then(answer.said, said.Error))
	case answer.StatusCode != http.StatusOK || said.Results == nil:
		return "", answer.refused(", but not the answer of an InfluxDB", nil)
	}
	var all []series
	for _, r := range said.Results {
		if r.Error != "" {
			return "", errors.New(then(answer.said, r.Error))
		}
		for _, s := range r.Series {
			one := last(s.Values)
			if one.name = labelled(s.Name, s.Tags); r.Partial || s.Partial {
				one.wrong = "has more rows than one answer holds, so the last is unknown"
			}
			all = append(all, one)
		}
	}
	return judge(p, all)
}

// last is the value that counts. null, as of a time without points, is not
// passed over: an older number says nothing of now.
func last(rows [][]any) series {
	if len(rows) == 0 || len(rows[len(rows)-1]) == 0 {
		return series{wrong: "has no rows"}
	}
	row := rows[len(rows)-1]
	switch v := row[len(row)-1].(type) {
	case float64:
		return series{value: v}
	case nil:
		return series{wrong: "ends with null"}
	}
	return series{wrong: "ends with no number"}
}
