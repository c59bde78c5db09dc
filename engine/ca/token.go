package ca

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/hex"
	"fmt"
	"strings"
)

// Token lets a host into a cluster:
//
//	ORCH-1-<role>-<digest of the CA's key>-<id>-<secret>
//
// in lower-case base32 but for the first two parts. The digest tells the
// host which cluster it talks to, the secret tells the cluster that the host
// may join. The cluster keeps the secret's hash only.
type Token struct {
	Role   Role   // Engine or Agent
	CA     string // see Digest
	ID     string
	Secret string
}

var base = base32.StdEncoding.WithPadding(base32.NoPadding)

// NewToken makes a token with 130 random bits of secret.
func NewToken(role Role, ca string) Token {
	return Token{Role: role, CA: ca, ID: strings.ToLower(rand.Text()[:6]), Secret: strings.ToLower(rand.Text())}
}

func (t Token) String() string {
	digest, _ := hex.DecodeString(t.CA) // made by Digest
	return strings.Join([]string{"ORCH", "1", string(t.Role), strings.ToLower(base.EncodeToString(digest)), t.ID, t.Secret}, "-")
}

// Hash is what the cluster keeps of the secret.
func (t Token) Hash() []byte {
	sum := sha256.Sum256([]byte(t.Secret))
	return sum[:]
}

// Matches says whether the secret is that of hash.
func (t Token) Matches(hash []byte) bool { return subtle.ConstantTimeCompare(t.Hash(), hash) == 1 }

// ParseToken is the inverse of String.
func ParseToken(text string) (Token, error) {
	parts := strings.Split(strings.TrimSpace(text), "-")
	if len(parts) != 6 || parts[0] != "ORCH" {
		return Token{}, fmt.Errorf("this is no join token: it should be like ORCH-1-agent-…, as `orch cluster token` prints it")
	}
	if parts[1] != "1" {
		return Token{}, fmt.Errorf("the join token is of format %s; this orch knows format 1: use one of the cluster's version", parts[1])
	}
	digest, err := base.DecodeString(strings.ToUpper(parts[3]))
	role := Role(parts[2])
	if err != nil || len(digest) != sha256.Size || role != Engine && role != Agent || parts[4] == "" || len(parts[5]) < 26 {
		return Token{}, fmt.Errorf("the join token is damaged: copy all of what `orch cluster token` printed")
	}
	return Token{Role: role, CA: hex.EncodeToString(digest), ID: parts[4], Secret: parts[5]}, nil
}
