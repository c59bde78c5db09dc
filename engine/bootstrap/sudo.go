package bootstrap

import (
	"context"
	"fmt"
	"strings"
)

const (
	sudoFree  = "sudo -n"
	sudoAsked = "sudo -k -S -p ''" // -k: what it remembers is no password
)

// become finds the way to root: by itself, by sudo without a password, else by
// sudo with the one that ask returns; ask is nil where there is none.
func become(ctx context.Context, t Transport, user string, ask func() (string, error)) (*shell, error) {
	s := &shell{Transport: t, user: user}
	id, err := s.output(ctx, "id -u", nil)
	if err != nil {
		return nil, fmt.Errorf("cannot run a command there: %w", err)
	}
	if strings.TrimSpace(id) == "0" {
		return s, nil
	}
	if _, err := s.output(ctx, "command -v sudo", nil); err != nil {
		return nil, fmt.Errorf("user %q is not root, and there is no sudo: log in as root@…, or install sudo", user)
	}
	s.sudo = sudoFree
	_, err = s.output(ctx, "id -u", nil)
	if err == nil {
		return s, nil
	}
	if ask == nil {
		return nil, fmt.Errorf("sudo of user %q wants a password (%w): give it with --ask-sudo-password or ORCH_SUDO_PASSWORD, or allow %s NOPASSWD in sudoers", user, err, user)
	}
	if s.password, err = ask(); err != nil {
		return nil, err
	}
	s.sudo = sudoAsked
	if id, err = s.output(ctx, "id -u", nil); err != nil || strings.TrimSpace(id) != "0" {
		if err == nil {
			err = fmt.Errorf("it made us user %s, not root", strings.TrimSpace(id))
		}
		return nil, fmt.Errorf("sudo refuses user %q: %w: is the password right, and may the user become root?", user, err)
	}
	return s, nil
}
