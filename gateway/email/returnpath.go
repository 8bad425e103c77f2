package email

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

const (
	signatureSize = 10 // octets; 80 bits cannot be guessed over SMTP
	minKey        = 16 // octets of a signing key
)

// tokens are written in the letters that survive every mail system: lower case
// and digits, since a local part may come back in other case.
var tokens = base32.HexEncoding.WithPadding(base32.NoPadding)

// ReturnPath makes and recognises the envelope senders of letters
// (VERP): "bounce+TOKEN@example.org", where the token is the letter's id with a
// signature. The same id always has the same path, so that a repetition looks
// the same to a greylisting relay.
type ReturnPath struct {
	local, domain string
	keys          [][]byte
}

// NewReturnPath returns the paths below an address, "bounce@example.org". The
// first key signs; all of them are recognised, so that a key can be replaced
// while bounces of older letters are still to come. A key has at least 16 octets.
func NewReturnPath(address string, keys ...[]byte) (*ReturnPath, error) {
	mailbox, domain, err := parseAddress(address)
	if err != nil {
		return nil, fmt.Errorf("return path: %w", err)
	}
	if len(keys) == 0 {
		return nil, errors.New("return path: a signing key is needed")
	}
	for _, k := range keys {
		if len(k) < minKey {
			return nil, fmt.Errorf("return path: a signing key has at least %d octets", minKey)
		}
	}
	local := mailbox[:len(mailbox)-len(domain)-1]
	if len(local) > 32 || strings.Contains(local, "+") {
		return nil, errors.New("return path: the local part has at most 32 characters and no plus")
	}
	return &ReturnPath{local: strings.ToLower(local), domain: domain, keys: keys}, nil
}

// For returns the envelope sender of a letter.
func (r *ReturnPath) For(id int64) string {
	token := binary.BigEndian.AppendUint64(nil, uint64(id))
	token = append(token, sign(r.keys[0], token)...)
	return r.local + "+" + strings.ToLower(tokens.EncodeToString(token)) + "@" + r.domain
}

// Match returns the id of the letter whose envelope sender an address is. It is
// false for an address that was not made by For with one of the keys.
func (r *ReturnPath) Match(address string) (id int64, ok bool) {
	token, ok := r.token(address)
	if !ok {
		return 0, false
	}
	raw, err := tokens.DecodeString(token)
	if err != nil || len(raw) != 8+signatureSize {
		return 0, false
	}
	for _, k := range r.keys {
		if hmac.Equal(raw[8:], sign(k, raw[:8])) {
			return int64(binary.BigEndian.Uint64(raw)), true
		}
	}
	return 0, false
}

// token returns the token of an address that looks like one of ours.
func (r *ReturnPath) token(address string) (string, bool) {
	local, domain, ok := strings.Cut(address, "@")
	if !ok || !strings.EqualFold(domain, r.domain) {
		return "", false
	}
	base, token, ok := strings.Cut(local, "+")
	if !ok || !strings.EqualFold(base, r.local) {
		return "", false
	}
	return strings.ToUpper(token), true
}

func sign(key, id []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte("zvonok return path\x00"))
	mac.Write(id)
	return mac.Sum(nil)[:signatureSize]
}
