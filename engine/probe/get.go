package probe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"

	"orch/engine/api"
)

// maxBody is how much of an answer is read, in bytes.
const maxBody = 1 << 20

var direct = &http.Transport{DisableKeepAlives: true, Proxy: nil}

// page is an answer whose body is not read yet.
type page struct {
	*http.Response
	said string // "GET http://x/y: 200 OK"
}

// address reads a probe's URL. The error holds nothing of it: what can't be
// read can't be rid of its password either.
func address(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	switch {
	case raw == "":
		return nil, errors.New("it has no url")
	case err != nil:
		return nil, errors.New("its url cannot be read")
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, errors.New("its url does not begin with http:// or https:// and a host")
	}
	return u, nil
}

// shown is what a reason may hold of a URL.
func shown(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}).String()
}

// get asks for u; the caller closes the body.
func (a *Asker) get(ctx context.Context, u *url.URL) (*page, error) {
	client := http.Client{Transport: direct}
	if a.Client != nil {
		client = *a.Client
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	said := "GET " + shown(u)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, errors.New(said + ": its url cannot be asked for")
	}
	req.Header.Set("User-Agent", "orch-probe")
	res, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", said, plain(ctx, err))
	}
	return &page{res, said + ": " + res.Status}, nil
}

// plain is the innermost, and most telling, part of a network's error.
func plain(ctx context.Context, err error) error {
	var around *url.Error // holds the URL
	if errors.As(err, &around) {
		err = around.Err
	}
	var number syscall.Errno
	var lookup *net.DNSError
	switch {
	case ctx.Err() != nil:
		return over(ctx)
	case errors.As(err, &number):
		return number
	case errors.As(err, &lookup):
		return errors.New(lookup.Err) // "no such host"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the connection ended before the answer did")
	case strings.Contains(err.Error(), "Location header"): // and quotes it
		return errors.New("it redirects to an address that cannot be read")
	}
	return err
}

// refused is the error of an answer that isn't the one wanted. It is told in
// the server's own words, or where it redirects to.
func (p *page) refused(want string, body []byte) error {
	text := p.said + want
	if to, err := p.Location(); err == nil {
		return errors.New(text + ": it redirects to " + shown(to) + ", which is not followed")
	}
	return errors.New(then(text, firstLine(string(body))))
}

// query GETs path of the probe's server with params, and reads JSON, also from
// an answer that is an error: into then says which.
func (a *Asker) query(ctx context.Context, p *api.Probe, path string, params url.Values, into any) (*page, error) {
	u, err := address(p.Url)
	if err != nil {
		return nil, err
	}
	u = u.JoinPath(path)
	all := u.Query()
	for name, values := range params {
		all[name] = values
	}
	u.RawQuery = all.Encode()
	answer, err := a.get(ctx, u)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxBody+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", answer.said, plain(ctx, err))
	case len(body) > maxBody:
		return nil, errors.New(answer.said + ", but longer than 1 MiB: ask for less")
	case json.Unmarshal(body, into) == nil:
		return answer, nil
	case answer.StatusCode == http.StatusOK:
		return nil, answer.refused(", but not the answer of such a database", body)
	}
	return nil, answer.refused("", body)
}
