package bootstrap

import (
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"

	"orch/engine/spelling"
)

var keys = []string{"role", "name", "key", "jump", "addr", "hostkey", "label."}

var (
	nodeName = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$`)
	labelKey = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9_./-]*[A-Za-z0-9])?$`)
	pinned   = regexp.MustCompile(`^SHA256:[A-Za-z0-9+/]{43}=?$`)
)

// parseHost reads the words of a line; what is wrong with it comes all at once.
func parseHost(words []string) (*Host, []error) {
	h := &Host{}
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if err := h.parseDestination(words[0]); err != nil {
		errs = append(errs, err)
	}
	given := map[string]bool{}
	for _, word := range words[1:] {
		key, value, ok := strings.Cut(word, "=")
		switch {
		case !ok:
			fail("%q is no key=value: one host a line, then %s", word, strings.Join(keys, "=, ")+"K=V")
			continue
		case given[key]:
			fail("%s= is there twice", key)
		case value == "" && !strings.HasPrefix(key, "label."):
			fail("%s= has no value", key)
			continue
		}
		given[key] = true
		switch {
		case key == "role":
			h.Role = value
			if value != "engine" && value != "agent" {
				fail("role=%s: want engine or agent%s", value, meant(value, []string{"engine", "agent"}))
			}
		case key == "name":
			h.Name = value
			if !nodeName.MatchString(value) {
				fail("name=%q: want at most 63 of a-z, 0-9, - and ., with a letter or digit at both ends", value)
			}
		case key == "key":
			h.Key = value
		case key == "jump":
			h.Jump = value
		case key == "addr":
			h.Addr = strings.Trim(value, "[]")
			if _, _, err := net.SplitHostPort(value); err == nil && !isIP(h.Addr) {
				fail("addr=%s: without a port; --port sets the engines'", value)
			}
		case key == "hostkey":
			h.HostKey = strings.TrimSuffix(value, "=")
			if !pinned.MatchString(value) {
				fail("hostkey=%s: want SHA256: and 43 characters, as `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` on the host prints them", value)
			}
		case strings.HasPrefix(key, "label."):
			name := key[len("label."):]
			if !labelKey.MatchString(name) {
				fail("%q: a label's name has letters, digits and, between them, _ . / -", key)
			}
			if h.Labels == nil {
				h.Labels = map[string]string{}
			}
			h.Labels[name] = value
		default:
			fail("unknown key %q%s; known are %s", key, meant(key, keys), strings.Join(keys, "=, ")+"K=")
		}
	}
	return h, errs
}

func meant(word string, known []string) string {
	if n := spelling.Nearest(word, known); n != "" {
		return fmt.Sprintf(" (%s?)", n)
	}
	return ""
}

// parseDestination reads [user@]host[:port]; an IPv6 address with a port is
// in brackets.
func (h *Host) parseDestination(text string) error {
	rest := strings.TrimPrefix(text, "ssh://")
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		h.User, rest = rest[:i], rest[i+1:]
		if h.User == "" {
			return fmt.Errorf("%q has no user before the @", text)
		}
	}
	h.Address = strings.Trim(rest, "[]")
	if !isIP(h.Address) && strings.Contains(rest, ":") {
		host, port, err := net.SplitHostPort(rest)
		if err != nil {
			return fmt.Errorf("%q is no [user@]host[:port]: %w", text, err)
		}
		h.Address = host
		if h.Port, err = strconv.Atoi(port); err != nil || h.Port < 1 || h.Port > 65535 {
			return fmt.Errorf("%q: a port is a number from 1 to 65535", text)
		}
	}
	if h.Address == "" || strings.HasPrefix(h.Address, "-") || strings.ContainsAny(h.Address, " =/'\"$`;&|<>") || strings.HasPrefix(h.User, "-") {
		return fmt.Errorf("%q is no [user@]host[:port]: a line begins with the host", text)
	}
	return nil
}
