package playbooks

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"slices"
	"strings"

	"orch/engine/api"
)

// BundleHash identifies a bundle: a SHA-256 in hex over its root's path and
// then each file's path and content, by path, each preceded by its length as
// 8 bytes, big-endian.
func BundleHash(b *api.Bundle) string {
	h := sha256.New()
	add(h, []byte(b.Root))
	for _, f := range sortedFiles(b.Files) {
		add(h, []byte(f.Path))
		add(h, f.Content)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// hashOf is a bundle's hash as it says, or else as it is.
func hashOf(b *api.Bundle) string {
	if b.Hash != "" {
		return b.Hash
	}
	return BundleHash(b)
}

func add(h hash.Hash, b []byte) {
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(b))))
	h.Write(b)
}

func sortedFiles(files []*api.BundleFile) []*api.BundleFile {
	return slices.SortedFunc(slices.Values(files), func(a, b *api.BundleFile) int { return strings.Compare(a.Path, b.Path) })
}

func newBundle(root string, files map[string][]byte) *api.Bundle {
	b := &api.Bundle{Root: root}
	for path, content := range files {
		b.Files = append(b.Files, &api.BundleFile{Path: path, Content: content})
	}
	b.Files = sortedFiles(b.Files)
	b.Hash = BundleHash(b)
	return b
}
