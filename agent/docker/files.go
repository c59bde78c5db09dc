package docker

import (
	"archive/tar"
	"bufio"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	"orch/agent/task"
)

// user is who the task runs as: as the spec says, else as the image does.
func (r *Runtime) user(t *task.Task) string {
	if t.Spec.User != "" {
		return t.Spec.User
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return string(r.images[t.Spec.Image])
}

// owner reads "uid[:gid]"; ok is false where a name needs the image's passwd.
func owner(user string) (uid, gid int, ok bool) {
	if user == "" {
		return os.Geteuid(), os.Getegid(), true
	}
	u, g, _ := strings.Cut(user, ":")
	uid, err := strconv.Atoi(u)
	if err != nil {
		return 0, 0, false
	}
	if g == "" {
		return uid, 0, true // as Docker does for a uid that passwd lacks
	}
	gid, err = strconv.Atoi(g)
	return uid, gid, err == nil
}

func (r *Runtime) writeFiles(t *task.Task) ([]string, error) {
	uid, gid, ok := owner(r.user(t))
	if !ok {
		uid, gid = os.Geteuid(), os.Getegid() // giveFiles puts it right
	}
	return r.files.Write(t.ID, uid, gid, t.Files)
}

// giveFiles gives the files to a user known by name only to the image, which
// the created container can be asked.
func (r *Runtime) giveFiles(ctx context.Context, t *task.Task, container string) error {
	user := r.user(t)
	if _, _, numeric := owner(user); numeric || len(t.Files) == 0 {
		return nil
	}
	name, group, _ := strings.Cut(user, ":")
	entry, err := r.lookup(ctx, container, "/etc/passwd", name)
	if err != nil {
		return err
	}
	if group != "" {
		g, err := r.lookup(ctx, container, "/etc/group", group)
		if err != nil {
			return err
		}
		entry[3] = g[2]
	}
	uid, err1 := strconv.Atoi(entry[2])
	gid, err2 := strconv.Atoi(entry[3])
	if err1 != nil || err2 != nil {
		return fmt.Errorf("image %q has a bad passwd entry for user %q", t.Spec.Image, name)
	}
	return r.files.Chown(t.ID, uid, gid)
}

// lookup finds a name or number in the passwd or group file of a container;
// the result has at least four fields.
func (r *Runtime) lookup(ctx context.Context, container, file, name string) ([]string, error) {
	none := fmt.Errorf("the image's %s has no %q", file, name)
	if _, err := strconv.Atoi(name); err == nil {
		return []string{name, "", name, "0"}, nil
	}
	body, _, err := r.docker.CopyFromContainer(ctx, container, file)
	if absent(err) {
		return nil, none
	}
	if err != nil {
		return nil, err
	}
	defer body.Close()
	content := tar.NewReader(body)
	if _, err := content.Next(); err != nil {
		return nil, err
	}
	for lines := bufio.NewScanner(content); lines.Scan(); {
		if fields := strings.Split(lines.Text(), ":"); len(fields) >= 4 && fields[0] == name {
			return fields, nil
		}
	}
	return nil, none
}
