package bootstrap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Host is one line of an inventory.
type Host struct {
	Line   string // as it was written, without its comment
	Source string // file:line

	User    string // empty: as ssh's configuration says
	Address string // what ssh is told: a name, an alias of its configuration, or an IP
	Port    int    // of SSH; 0: as ssh's configuration says
	Role    string // engine | agent; empty: see AssignRoles
	Name    string // of the node; empty: the host's own
	Labels  map[string]string
	Key     string // private key's file
	Jump    string // hosts to go through, as in ssh -J
	Addr    string // where other hosts reach it; empty: the address that SSH came in by
	HostKey string // SHA256:…, the only host key to accept
}

// String is the host as messages name it.
func (h *Host) String() string {
	if h.Name != "" {
		return h.Name
	}
	return h.Address
}

// deepest is how many inventories may include one another.
const deepest = 10

// Read reads an inventory: a file of lines, a program whose output is such
// lines, or "-" for stdin. A line is
//
//	[user@]host[:port] [role=engine|agent] [name=N] [label.K=V] [key=FILE]
//	    [jump=HOST,…] [addr=IP] [hostkey=SHA256:…]
//
// or @FILE, which includes another inventory, relative to this one. A # begins
// a comment; quotes as in a shell keep spaces. The error names every bad line
// with its file and number.
func Read(ctx context.Context, path string, stdin io.Reader) ([]*Host, error) {
	r := &reader{ctx: ctx, stdin: stdin}
	hosts := r.file(path, "", 0)
	if len(r.errs) == 0 && len(hosts) == 0 {
		return nil, fmt.Errorf("%s names no host: write one a line, [user@]host [role=engine|agent] [name=…]", path)
	}
	return hosts, errors.Join(r.errs...)
}

type reader struct {
	ctx   context.Context
	stdin io.Reader
	errs  []error
}

func (r *reader) fail(source, format string, args ...any) {
	r.errs = append(r.errs, fmt.Errorf(source+": "+format, args...))
}

// file reads one inventory; from is the line that includes it.
func (r *reader) file(path, from string, depth int) []*Host {
	if from == "" {
		from = path
	}
	text, err := r.content(path)
	switch {
	case err != nil:
		r.fail(from, "cannot read the inventory: %w", err)
		return nil
	case depth > deepest:
		r.fail(from, "%s is included %d deep: does it include itself?", path, depth)
		return nil
	}
	var hosts []*Host
	for i, line := range strings.Split(string(text), "\n") {
		source := fmt.Sprintf("%s:%d", path, i+1)
		words, end, err := split(line)
		switch {
		case err != nil:
			r.fail(source, "%w", err)
		case len(words) == 0:
		case strings.HasPrefix(words[0], "@"):
			if len(words) > 1 {
				r.fail(source, "%q after an include: give each host its own keys, in %s", words[1], words[0][1:])
			}
			included := words[0][1:]
			if path != "-" && !filepath.IsAbs(included) {
				included = filepath.Join(filepath.Dir(path), included)
			}
			hosts = append(hosts, r.file(included, source, depth+1)...)
		default:
			h, errs := parseHost(words)
			h.Source, h.Line = source, strings.TrimSpace(line[:end])
			for _, err := range errs {
				r.fail(source, "%w", err)
			}
			hosts = append(hosts, h)
		}
	}
	return hosts
}

// content is what is in the file, or what the program prints.
func (r *reader) content(path string) ([]byte, error) {
	if path == "-" {
		return io.ReadAll(r.stdin)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, fmt.Errorf("%s is a folder", path)
	}
	text, err := os.ReadFile(path)
	if err != nil || info.Mode()&0o111 == 0 || !bytes.HasPrefix(text, []byte("#!")) && !bytes.HasPrefix(text, []byte("\x7fELF")) {
		return text, err
	}
	program, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(r.ctx, program)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s ran and failed: %w%s", path, err, lastWords(said.String()))
	}
	return out, nil
}

// lastWords is ": " and the last line of what a program said, if any.
func lastWords(text string) string {
	text = strings.TrimSpace(text)
	if i := strings.LastIndexByte(text, '\n'); i >= 0 {
		text = text[i+1:]
	}
	if text == "" {
		return ""
	}
	return ": " + text
}

// isIP says that an address is not a name.
func isIP(address string) bool { return net.ParseIP(strings.Trim(address, "[]")) != nil }
