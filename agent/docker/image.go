package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/docker/docker/api/types/image"
)

// imageUser is the USER of an image, all that we need to know of one.
type imageUser string

// ensureImage has the image on this node, or an error that says why not. It
// looks here before it asks a registry; only "always" asks in any case.
func (r *Runtime) ensureImage(ctx context.Context, ref, pull string, progress func(string)) error {
	if ref == "" {
		return errors.New("a task on runtime docker needs an image")
	}
	unlock, err := r.busy.lock(ctx, "image "+ref)
	if err != nil {
		return err
	}
	defer unlock()
	if pull != "always" {
		_, found, err := r.imageUser(ctx, ref)
		if found || err != nil {
			return err
		}
		if pull == "never" {
			return fmt.Errorf("image %q is not on this node, and its pull policy is never", ref)
		}
	}
	r.forgetImage(ref)
	if err := r.pull(ctx, ref, progress); err != nil {
		return fmt.Errorf("cannot pull image %q: %w", ref, r.plain(err))
	}
	_, _, err = r.imageUser(ctx, ref)
	return err
}

// imageUser looks an image up on this node, once.
func (r *Runtime) imageUser(ctx context.Context, ref string) (imageUser, bool, error) {
	r.mu.Lock()
	user, seen := r.images[ref]
	r.mu.Unlock()
	if seen {
		return user, true, nil
	}
	info, err := r.docker.ImageInspect(ctx, ref)
	if absent(err) {
		return "", false, nil
	}
	if err != nil {
		return "", false, r.plain(err)
	}
	if info.Config != nil {
		user = imageUser(info.Config.User)
	}
	r.mu.Lock()
	r.images[ref] = user
	r.mu.Unlock()
	return user, true, nil
}

func (r *Runtime) forgetImage(ref string) {
	r.mu.Lock()
	delete(r.images, ref)
	r.mu.Unlock()
}

func (r *Runtime) pull(ctx context.Context, ref string, progress func(string)) error {
	auth, err := registryAuth(ctx, ref)
	if err != nil {
		return err
	}
	progress("pulling " + ref)
	body, err := r.docker.ImagePull(ctx, ref, image.PullOptions{RegistryAuth: auth})
	if err != nil {
		return err
	}
	defer body.Close()
	return readPull(body, ref, time.Now, progress)
}

// readPull reads Docker's stream of progress messages to its end, and tells
// at most twice a second how far the download is.
func readPull(body io.Reader, ref string, now func() time.Time, progress func(string)) error {
	type amount struct{ done, total int64 }
	layers := map[string]amount{}
	var told time.Time
	for dec := json.NewDecoder(body); ; {
		var m struct {
			ID, Status, Error string
			ProgressDetail    struct{ Current, Total int64 }
		}
		if err := dec.Decode(&m); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		switch {
		case m.Error != "":
			return errors.New(m.Error)
		case m.Status == "Downloading" && m.ProgressDetail.Total > 0:
			layers[m.ID] = amount{m.ProgressDetail.Current, m.ProgressDetail.Total}
		case m.Status == "Download complete":
			layers[m.ID] = amount{layers[m.ID].total, layers[m.ID].total}
		}
		var all amount
		for _, l := range layers {
			all.done += l.done
			all.total += l.total
		}
		if all.total > 0 && now().Sub(told) >= 500*time.Millisecond {
			told = now()
			progress(fmt.Sprintf("pulling %s: %d of %d MB", ref, all.done/1e6, max(all.total/1e6, 1)))
		}
	}
}
