package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// Docker is the little of the Engine API (v1.24 and later, unversioned paths)
// that the demo needs.
type Docker struct {
	Socket string
	client *http.Client
}

// FindDocker gives the daemon at DOCKER_HOST (unix:// only) or at its usual
// place. The error says why there is none.
func FindDocker(ctx context.Context) (*Docker, error) {
	socket := "/var/run/docker.sock"
	if h := os.Getenv("DOCKER_HOST"); h != "" {
		path, ok := strings.CutPrefix(h, "unix://")
		if !ok {
			return nil, fmt.Errorf("DOCKER_HOST is %q: the demo speaks only to unix sockets", h)
		}
		socket = path
	}
	d := &Docker{Socket: socket, client: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := d.call(ctx, http.MethodGet, "/_ping", nil, nil); err != nil {
		return nil, fmt.Errorf("no Docker at %s: %w", socket, err)
	}
	return d, nil
}

// Architecture is the daemon's, in Go's words: "linux", "amd64".
func (d *Docker) Architecture(ctx context.Context) (goos, goarch string, err error) {
	var v struct{ Os, Arch string }
	err = d.call(ctx, http.MethodGet, "/version", nil, &v)
	return v.Os, v.Arch, err
}

// HasImage looks locally only.
func (d *Docker) HasImage(ctx context.Context, ref string) bool {
	return d.call(ctx, http.MethodGet, "/images/"+ref+"/json", nil, nil) == nil
}

// CanPull asks the daemon to look ref up in its registry, for at most limit.
func (d *Docker) CanPull(ctx context.Context, ref string, limit time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return d.call(ctx, http.MethodGet, "/distribution/"+ref+"/json", nil, nil) == nil
}

// Pull gets ref from its registry.
func (d *Docker) Pull(ctx context.Context, ref string) error {
	repo, tag, _ := strings.Cut(ref, ":")
	q := url.Values{"fromImage": {repo}, "tag": {tag}}
	return d.create(ctx, q, nil)
}

// Import makes the image ref of one layer, the tar that write writes; changes
// are Dockerfile instructions (CMD, ENTRYPOINT, ENV, …).
func (d *Docker) Import(ctx context.Context, ref string, changes []string, write func(io.Writer) error) error {
	repo, tag, _ := strings.Cut(ref, ":")
	q := url.Values{"fromSrc": {"-"}, "repo": {repo}, "tag": {tag}, "changes": changes,
		"message": {"made by orch's demo"}}
	r, w := io.Pipe()
	go func() { w.CloseWithError(write(w)) }()
	err := d.create(ctx, q, r)
	r.Close() // ends the writer where the daemon did not read to the end
	return err
}

// Remove forgets an image; one in use stays, which is no error here.
func (d *Docker) Remove(ctx context.Context, ref string) {
	d.call(ctx, http.MethodDelete, "/images/"+ref, nil, nil)
}

// Images lists the local references that begin with repo.
func (d *Docker) Images(ctx context.Context, repo string) ([]string, error) {
	var list []struct{ RepoTags []string }
	filter, _ := json.Marshal(map[string][]string{"reference": {repo}})
	err := d.call(ctx, http.MethodGet, "/images/json?filters="+url.QueryEscape(string(filter)), nil, &list)
	var refs []string
	for _, i := range list {
		refs = append(refs, i.RepoTags...)
	}
	return refs, err
}

// Containers lists all containers, ended ones too, as "name (image)", whose
// image is one of images.
func (d *Docker) Containers(ctx context.Context, images map[string]bool) ([]string, error) {
	var list []struct {
		Names []string
		Image string
	}
	err := d.call(ctx, http.MethodGet, "/containers/json?all=1", nil, &list)
	var found []string
	for _, c := range list {
		if images[c.Image] {
			found = append(found, strings.TrimPrefix(strings.Join(c.Names, ","), "/")+" ("+c.Image+")")
		}
	}
	return found, err
}

// create is POST /images/create; its failures come in the stream, after 200.
func (d *Docker) create(ctx context.Context, q url.Values, body io.Reader) error {
	resp, err := d.do(ctx, http.MethodPost, "/images/create?"+q.Encode(), body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	for dec := json.NewDecoder(resp.Body); ; {
		var m struct{ Error string }
		if err := dec.Decode(&m); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if m.Error != "" {
			return fmt.Errorf("docker: %s", m.Error)
		}
	}
}

// call decodes the answer into out unless out is nil.
func (d *Docker) call(ctx context.Context, method, path string, body io.Reader, out any) error {
	resp, err := d.do(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	}
	return json.NewDecoder(resp.Body).Decode(out)
}

func (d *Docker) do(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://docker"+path, body)
	if err != nil {
		return nil, err
	}
	resp, err := d.client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 300 {
		defer resp.Body.Close()
		var m struct{ Message string }
		json.NewDecoder(io.LimitReader(resp.Body, 4096)).Decode(&m) // the status is said anyway
		return nil, fmt.Errorf("docker: %s: %s", resp.Status, m.Message)
	}
	return resp, nil
}
