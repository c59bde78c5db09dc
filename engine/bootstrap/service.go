package bootstrap

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"strings"
)

//go:embed orch.service
var unitTemplate string

//go:embed supervise.sh
var supervisorTemplate string

// unit is systemd's unit file.
func (o *Options) unit() string { return o.fill(unitTemplate) }

// supervise is what keeps orch running where there is no systemd.
func (o *Options) supervise() string { return o.fill(supervisorTemplate) }

func (o *Options) fill(text string) string {
	return strings.NewReplacer("@BIN@", o.binary(), "@DIR@", o.DataDir).Replace(text)
}

func sum(text string) string {
	s := sha256.Sum256([]byte(text))
	return hex.EncodeToString(s[:])
}
