// Package pushtest is a push service and its browsers on the wire, for tests: it
// takes messages as RFC 8030 says, checks who signed them (RFC 8292), and opens
// them with the browser's keys (RFC 8291), all written from the RFCs and without
// the library that package push sends with.
package pushtest

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Service is a push service at a port of the loopback, over TLS.
type Service struct {
	server *httptest.Server

	mu       sync.Mutex
	browsers map[string]*Browser // by path
	behave   func(Request) Answer
	taken    []Message
	requests int
	changed  chan struct{} // closed and replaced at every request
}

// Browser is one subscription of a page.
type Browser struct {
	URL          string
	P256dh, Auth string // base64url, as PushSubscription.toJSON gives them

	private *ecdh.PrivateKey
	auth    []byte
}

// Request is a message as it came, for deciding about the answer.
type Request struct {
	Number  int // counted from 1
	Browser *Browser
}

// Answer is what the service says; the zero Answer takes the message.
type Answer struct {
	Status     int
	RetryAfter string
	HangUp     bool // closes the connection without an answer
}

// Message is a message the service took and the browser read.
type Message struct {
	Browser   *Browser
	Payload   []byte
	TTL       int // seconds
	Urgency   string
	Topic     string
	Contact   string // the claim sub
	PublicKey string // who signed it, base64url
	Length    int    // octets of the encrypted body
}

// NewService starts a service; Close ends it.
func NewService() *Service {
	s := &Service{browsers: map[string]*Browser{}, behave: func(Request) Answer { return Answer{} }, changed: make(chan struct{})}
	s.server = httptest.NewUnstartedServer(http.HandlerFunc(s.take))
	s.server.EnableHTTP2 = true
	s.server.StartTLS()
	return s
}

// Close ends the service.
func (s *Service) Close() { s.server.Close() }

// Host is the service's host and port, to be allowed in the sender's settings.
func (s *Service) Host() string { return s.server.Listener.Addr().String() }

// Roots are the issuers of its certificate.
func (s *Service) Roots() *x509.CertPool {
	roots := x509.NewCertPool()
	roots.AddCert(s.server.Certificate())
	return roots
}

// Subscribe makes a browser.
func (s *Service) Subscribe() *Browser {
	private, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	auth := make([]byte, 16)
	_, _ = rand.Read(auth)
	path := "/push/" + rand.Text()
	b := &Browser{
		URL: s.server.URL + path, private: private, auth: auth,
		P256dh: base64.RawURLEncoding.EncodeToString(private.PublicKey().Bytes()),
		Auth:   base64.RawURLEncoding.EncodeToString(auth),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.browsers[path] = b
	return b
}

// Unsubscribe makes the service forget a browser: messages to it are answered 410.
func (s *Service) Unsubscribe(b *Browser) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for path, other := range s.browsers {
		if other == b {
			delete(s.browsers, path)
		}
	}
}

// Behave decides about the answers from now on; nil takes everything.
func (s *Service) Behave(behave func(Request) Answer) {
	if behave == nil {
		behave = func(Request) Answer { return Answer{} }
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.behave = behave
}

// Messages returns what was taken so far.
func (s *Service) Messages() []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Message(nil), s.taken...)
}

// Requests returns how many requests have come.
func (s *Service) Requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

// Wait returns when as many messages have been taken.
func (s *Service) Wait(ctx context.Context, n int) ([]Message, error) {
	for {
		s.mu.Lock()
		taken, changed := append([]Message(nil), s.taken...), s.changed
		s.mu.Unlock()
		if len(taken) >= n {
			return taken, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return taken, fmt.Errorf("%d of %d push messages came: %w", len(taken), n, ctx.Err())
		}
	}
}

func (s *Service) take(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests++
	browser, behave, number := s.browsers[r.URL.Path], s.behave, s.requests
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		close(s.changed)
		s.changed = make(chan struct{})
		s.mu.Unlock()
	}()
	if browser == nil {
		w.WriteHeader(http.StatusGone)
		return
	}
	if a := behave(Request{Number: number, Browser: browser}); a.HangUp {
		panic(http.ErrAbortHandler)
	} else if a.Status != 0 {
		if a.RetryAfter != "" {
			w.Header().Set("Retry-After", a.RetryAfter)
		}
		w.WriteHeader(a.Status)
		return
	}
	m, err := s.read(browser, r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	s.taken = append(s.taken, m)
	s.mu.Unlock()
	w.Header().Set("Location", s.server.URL+"/message/"+rand.Text())
	w.WriteHeader(http.StatusCreated)
}

func (s *Service) read(browser *Browser, r *http.Request) (Message, error) {
	m := Message{Browser: browser, Urgency: r.Header.Get("Urgency"), Topic: r.Header.Get("Topic")}
	var err error
	if r.Method != http.MethodPost {
		return m, errors.New("the method is not POST")
	}
	if m.TTL, err = strconv.Atoi(r.Header.Get("TTL")); err != nil || m.TTL < 0 {
		return m, errors.New("TTL is not a number (RFC 8030 section 5.2)")
	}
	if len(m.Topic) > 32 || strings.Trim(m.Topic, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
		return m, errors.New("the topic is not one (RFC 8030 section 5.4)")
	}
	if r.Header.Get("Content-Encoding") != "aes128gcm" {
		return m, errors.New("the content coding is not aes128gcm (RFC 8291)")
	}
	if m.PublicKey, m.Contact, err = verify(r.Header.Get("Authorization"), s.server.URL); err != nil {
		return m, err
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return m, err
	}
	if m.Length = len(body); m.Length > 4096 {
		return m, errors.New("more than 4096 octets (RFC 8030 section 7.2)")
	}
	m.Payload, err = browser.open(body)
	return m, err
}

// verify checks a signature of RFC 8292 and returns who made it.
func verify(header, origin string) (key, contact string, err error) {
	rest, ok := strings.CutPrefix(header, "vapid ")
	if !ok {
		return "", "", errors.New("the authorization is not of the scheme vapid")
	}
	var token string
	for field := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(field), "=")
		switch name {
		case "t":
			token = value
		case "k":
			key = value
		}
	}
	raw, err := base64.RawURLEncoding.DecodeString(key)
	if err != nil {
		return "", "", errors.New("k is not base64url")
	}
	public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), raw)
	if err != nil {
		return "", "", errors.New("k is no key")
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return "", "", errors.New("t is no token")
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || len(signature) != 64 {
		return "", "", errors.New("the token has no signature")
	}
	hash := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if !ecdsa.Verify(public, hash[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])) {
		return "", "", errors.New("the signature is wrong")
	}
	var claims struct {
		Audience string `json:"aud"`
		Expires  int64  `json:"exp"`
		Subject  string `json:"sub"`
	}
	source, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(source, &claims) != nil {
		return "", "", errors.New("the claims cannot be read")
	}
	switch left := time.Until(time.Unix(claims.Expires, 0)); {
	case claims.Audience != origin:
		return "", "", fmt.Errorf("the token is for %s", claims.Audience)
	case left <= 0 || left > 24*time.Hour:
		return "", "", errors.New("the token does not expire within a day (RFC 8292 section 2)")
	case !strings.HasPrefix(claims.Subject, "mailto:") && !strings.HasPrefix(claims.Subject, "https:"):
		return "", "", errors.New("the token names no contact")
	}
	return key, claims.Subject, nil
}

// open reads an encrypted record (RFC 8188) with the keys of RFC 8291.
func (b *Browser) open(body []byte) ([]byte, error) {
	if len(body) < 21 {
		return nil, errors.New("the record has no header")
	}
	salt, size, length := body[:16], binary.BigEndian.Uint32(body[16:20]), int(body[20])
	if length != 65 || len(body) < 21+length || uint32(len(body)-21-length) > size {
		return nil, errors.New("the header of the record is wrong")
	}
	sender, err := ecdh.P256().NewPublicKey(body[21 : 21+length])
	if err != nil {
		return nil, err
	}
	shared, err := b.private.ECDH(sender)
	if err != nil {
		return nil, err
	}
	info := "WebPush: info\x00" + string(b.private.PublicKey().Bytes()) + string(sender.Bytes())
	ikm, err := hkdf.Key(sha256.New, shared, b.auth, info, 32)
	if err != nil {
		return nil, err
	}
	cek, err := hkdf.Key(sha256.New, ikm, salt, "Content-Encoding: aes128gcm\x00", 16)
	if err != nil {
		return nil, err
	}
	nonce, err := hkdf.Key(sha256.New, ikm, salt, "Content-Encoding: nonce\x00", 12)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(cek)
	if err != nil {
		return nil, err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	plain, err := gcm.Open(nil, nonce, body[21+length:], nil)
	if err != nil {
		return nil, errors.New("the browser cannot open the record")
	}
	end := len(plain) - 1
	for end >= 0 && plain[end] == 0 {
		end--
	}
	if end < 0 || plain[end] != 2 {
		return nil, errors.New("the record is not the last one")
	}
	return plain[:end], nil
}
