package main

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"

	"orch/engine/api"
	"orch/engine/ca"
	"orch/engine/durable"
)

// contextFlag is --context.
var contextFlag string

// localContext is this machine's own cluster.
const localContext = "local"

// savedContext is how an operator reaches a cluster: its engines with a
// certificate, or a host of it by ssh.
type savedContext struct {
	SSH         string          `json:"ssh,omitempty"`
	Credentials json.RawMessage `json:"credentials,omitempty"` // api.OperatorCredentials
	Key         string          `json:"key,omitempty"`         // PEM
}

// configDir is the folder of an operator's contexts.
func configDir() (string, error) {
	if dir := os.Getenv("ORCH_CONFIG"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("cannot find a folder for contexts: %w; set ORCH_CONFIG", err)
	}
	return filepath.Join(dir, "orch"), nil
}

func contextPath(name string) (string, error) {
	dir, err := configDir()
	switch {
	case err != nil:
		return "", err
	case name == "" || strings.ContainsAny(name, "/\\ ") || strings.HasPrefix(name, "."):
		return "", fmt.Errorf("%q can't be the name of a context", name)
	}
	return filepath.Join(dir, "contexts", name+".json"), nil
}

// currentContext is the one to use; empty: this machine's own cluster.
func currentContext() (string, error) {
	name := contextFlag
	if name == "" {
		name = os.Getenv("ORCH_CONTEXT")
	}
	if name == "" {
		if dir, err := configDir(); err == nil {
			b, err := os.ReadFile(filepath.Join(dir, "current"))
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return "", fmt.Errorf("cannot read which context is in use: %w", err)
			}
			name = strings.TrimSpace(string(b))
		}
	}
	if name == localContext {
		return "", nil
	}
	return name, nil
}

func useContext(name string) error {
	dir, err := configDir()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("cannot keep which context is in use: %w", err)
	}
	return durable.WriteFile(filepath.Join(dir, "current"), []byte(name+"\n"), 0o600)
}

func readContext(name string) (*savedContext, error) {
	if strings.HasPrefix(name, "ssh://") {
		return &savedContext{SSH: name}, nil
	}
	path, err := contextPath(name)
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("there is no context %q: `orch context ls` lists them", name)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read context %q: %w", name, err)
	}
	c := &savedContext{}
	if err := json.Unmarshal(b, c); err != nil || c.SSH == "" && c.Key == "" {
		return nil, fmt.Errorf("context %q in %s is damaged: import it again", name, path)
	}
	return c, nil
}

func writeContext(name string, c *savedContext) error {
	path, err := contextPath(name)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("cannot keep context %q: %w", name, err)
	}
	b, err := json.MarshalIndent(c, "", "  ")
	if err == nil {
		err = durable.WriteFile(path, append(b, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("cannot keep context %q: %w", name, err)
	}
	return nil
}

// saveContext keeps credentials under a name and uses them from now on.
func saveContext(name string, creds *api.OperatorCredentials, keyPEM []byte) error {
	c, err := newContext(creds, keyPEM)
	if err != nil {
		return err
	}
	if err := writeContext(name, c); err != nil {
		return err
	}
	return useContext(name)
}

func newContext(creds *api.OperatorCredentials, keyPEM []byte) (*savedContext, error) {
	b, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(creds)
	return &savedContext{Credentials: b, Key: string(keyPEM)}, err
}

func (c *savedContext) credentials() (*api.OperatorCredentials, error) {
	creds := &api.OperatorCredentials{}
	err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(c.Credentials, creds)
	return creds, err
}

func parseKeyPEM(text string) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("its key can't be read")
	}
	return ca.ParseKey(block.Bytes)
}

func keyPEM(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
}
