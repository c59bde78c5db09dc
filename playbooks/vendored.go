package playbooks

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"go.starlark.net/syntax"
)

// manifest is what orch.mod.star and orch.sum say. orch.mod.star names the
// packages, one call each: package("presets"). A package's files lie in
// vendor/NAME beside it, and orch.sum pins each: a line has the file's id
// ("@presets//web.star") and its SHA-256 in hex.
type manifest struct {
	packages map[string]bool
	sums     map[string]string
}

func readManifest(d *diskSource) (*manifest, error) {
	m := &manifest{packages: map[string]bool{}, sums: map[string]string{}}
	text, err := d.file("orch.mod.star")
	if err != nil {
		return nil, fmt.Errorf("packages are named in orch.mod.star: %w", err)
	}
	f, err := fileOptions.Parse("orch.mod.star", text, 0)
	if err != nil {
		return nil, err
	}
	for _, s := range f.Stmts {
		name, ok := packageCall(s)
		if !ok {
			start, _ := s.Span()
			if e, isExpr := s.(*syntax.ExprStmt); isExpr {
				if _, isDoc := e.X.(*syntax.Literal); isDoc {
					continue
				}
			}
			return nil, fmt.Errorf(`%s: only package("name") may stand here`, start)
		}
		m.packages[name] = true
	}
	sums, err := d.file("orch.sum")
	if err != nil {
		return nil, fmt.Errorf("packages are pinned in orch.sum: %w", err)
	}
	for line := range strings.Lines(string(sums)) {
		if id, sum, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			m.sums[id] = strings.TrimSpace(sum)
		}
	}
	return m, nil
}

func packageCall(s syntax.Stmt) (name string, ok bool) {
	e, ok := s.(*syntax.ExprStmt)
	if !ok {
		return "", false
	}
	c, ok := e.X.(*syntax.CallExpr)
	if !ok || len(c.Args) != 1 {
		return "", false
	}
	fn, _ := c.Fn.(*syntax.Ident)
	arg, _ := c.Args[0].(*syntax.Literal)
	if fn == nil || fn.Name != "package" || arg == nil {
		return "", false
	}
	name, ok = arg.Value.(string)
	return name, ok && validPackage(name)
}

func (m *manifest) read(d *diskSource, pkg, file string) ([]byte, error) {
	if !m.packages[pkg] {
		return nil, fmt.Errorf("orch.mod.star has no package(%q)", pkg)
	}
	id := joinID(pkg, file)
	b, err := d.file(path.Join("vendor", pkg, file))
	if err != nil {
		return nil, fmt.Errorf("vendor/%s/%s: %w", pkg, file, err)
	}
	want, ok := m.sums[id]
	if !ok {
		return nil, fmt.Errorf("orch.sum doesn't pin it")
	}
	if got := hexSum(b); got != want {
		return nil, fmt.Errorf("vendor/%s/%s was changed: orch.sum pins %.12s, it is %.12s", pkg, file, want, got)
	}
	return b, nil
}

func hexSum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// Sums is what orch.sum should hold for the packages in root's vendor
// folder: their files as they are now, sorted.
func Sums(root string) (string, error) {
	var lines []string
	vendor := filepath.Join(root, "vendor")
	err := filepath.WalkDir(vendor, func(p string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(vendor, p)
		if err != nil {
			return err
		}
		pkg, file, ok := strings.Cut(filepath.ToSlash(rel), "/")
		if ok {
			lines = append(lines, joinID(pkg, file)+" "+hexSum(b)+"\n")
		}
		return nil
	})
	slices.Sort(lines)
	return strings.Join(lines, ""), err
}
