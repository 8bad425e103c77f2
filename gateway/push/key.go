package push

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
)

// Key is the pair by which push services know us (VAPID, RFC 8292). A browser's
// subscription is bound to the public half: with another key every browser must
// register anew, so it must outlive the process.
type Key struct{ private *ecdh.PrivateKey }

// NewKey makes a key, written as [ParseKey] reads it.
func NewKey() ([]byte, error) {
	private, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the key of push messages: %w", err)
	}
	return base64.RawURLEncoding.AppendEncode(nil, private.Bytes()), nil
}

// ParseKey reads a key: the private half in base64url, as is usual for VAPID.
func ParseKey(source []byte) (*Key, error) {
	raw, err := base64.RawURLEncoding.AppendDecode(nil, bytes.TrimSpace(source))
	if err != nil {
		return nil, errors.New("the key of push messages is not base64url")
	}
	private, err := ecdh.P256().NewPrivateKey(raw)
	if err != nil {
		return nil, errors.New("the key of push messages is not one of P-256")
	}
	return &Key{private}, nil
}

func (k *Key) public() string {
	return base64.RawURLEncoding.EncodeToString(k.private.PublicKey().Bytes())
}

func (k *Key) secret() string { return base64.RawURLEncoding.EncodeToString(k.private.Bytes()) }
