package bootstrap

import (
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"fmt"
	"io"
	"os"
)

// LoadBinary looks at a Linux binary of orch and says which architecture it is
// for.
func LoadBinary(path string) (b *Binary, arch string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, "", err
	}
	defer f.Close()
	e, err := elf.NewFile(f)
	if err != nil {
		return nil, "", fmt.Errorf("%s is no Linux binary: %w", path, err)
	}
	for _, p := range e.Progs {
		if p.Type == elf.PT_INTERP {
			return nil, "", fmt.Errorf("%s is not static, so it may not start on other hosts: CGO_ENABLED=0, as `make build` has it", path)
		}
	}
	switch e.Machine {
	case elf.EM_X86_64:
		arch = "amd64"
	case elf.EM_AARCH64:
		arch = "arm64"
	default:
		return nil, "", fmt.Errorf("%s is for %s; orch's hosts are amd64 or arm64", path, e.Machine)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, "", err
	}
	h := sha256.New()
	size, err := io.Copy(h, f)
	if err != nil {
		return nil, "", err
	}
	return &Binary{Path: path, Sum: hex.EncodeToString(h.Sum(nil)), Size: size}, arch, nil
}
