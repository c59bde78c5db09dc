package playbooks

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"orch/builtins"
)

// fileOptions is the dialect.
var fileOptions = &syntax.FileOptions{Set: true, TopLevelControl: true}

const (
	worthCaching = 16 << 10 // bytes of source; parsing less is faster than a file
	maxCached    = 128      // files in a cache folder
)

// compile turns a module into a program, from the cache if it is there.
func compile(cacheDir, id string, src []byte, root bool) (*starlark.Program, error) {
	file := ""
	if cacheDir != "" && len(src) >= worthCaching {
		file = filepath.Join(cacheDir, cacheKey(id, src, root)+".starc")
		if p := readCached(file); p != nil {
			return p, nil
		}
	}
	f, err := fileOptions.Parse(id, src, 0)
	if err != nil {
		return nil, err
	}
	if err := checkParams(f, root); err != nil {
		return nil, err
	}
	p, err := starlark.FileProgram(f, builtins.Predeclared().Has)
	if err == nil && file != "" {
		writeCached(file, p)
	}
	return p, err
}

// environment is what a compiled program depends on besides its source.
var environment = sync.OnceValue(func() string {
	return fmt.Sprint("orch-1 ", starlark.CompilerVersion, *fileOptions, builtins.Predeclared().Keys())
})

func cacheKey(id string, src []byte, root bool) string {
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %v %d\n", environment(), id, root, len(src))
	h.Write(src)
	return hex.EncodeToString(h.Sum(nil))
}

// readCached returns nil for what is missing or damaged: a cached program is
// preceded by its SHA-256.
func readCached(file string) *starlark.Program {
	b, err := os.ReadFile(file)
	if err != nil || len(b) < sha256.Size {
		return nil
	}
	if sum := sha256.Sum256(b[sha256.Size:]); !bytes.Equal(sum[:], b[:sha256.Size]) {
		return nil
	}
	p, err := starlark.CompiledProgram(bytes.NewReader(b[sha256.Size:]))
	if err != nil {
		return nil
	}
	return p
}

// writeCached does its best: a cache that can't be written is only slower.
func writeCached(file string, p *starlark.Program) {
	var program bytes.Buffer
	if p.Write(&program) != nil || os.MkdirAll(filepath.Dir(file), 0o700) != nil {
		return
	}
	sum := sha256.Sum256(program.Bytes())
	tmp, err := os.CreateTemp(filepath.Dir(file), "new-*")
	if err != nil {
		return
	}
	_, err = tmp.Write(append(sum[:], program.Bytes()...))
	if tmp.Close() != nil || err != nil || os.Rename(tmp.Name(), file) != nil {
		os.Remove(tmp.Name())
		return
	}
	prune(filepath.Dir(file))
}

// prune removes the oldest programs of a folder that holds too many.
func prune(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) <= maxCached {
		return
	}
	var files []os.FileInfo
	for _, e := range entries {
		if info, err := e.Info(); err == nil && strings.HasSuffix(e.Name(), ".starc") {
			files = append(files, info)
		}
	}
	slices.SortFunc(files, func(a, b os.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	for i := 0; i < len(files)-maxCached/2; i++ {
		os.Remove(filepath.Join(dir, files[i].Name()))
	}
}
