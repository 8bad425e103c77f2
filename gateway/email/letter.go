package email

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	netmail "net/mail"
	"net/url"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/emersion/go-message"
	"github.com/emersion/go-message/mail"
	"github.com/emersion/go-msgauth/dkim"
	"golang.org/x/net/idna"
)

// Letter is one letter to one address.
type Letter struct {
	ID int64 // names the letter in its return path; the same at every attempt

	From    string // a mailbox, "Школа <pass@example.org>"; empty: that of the Sender
	To      string // an address, without a name: the reader knows it
	Subject string
	Text    string // the letter as plain text; must not be empty
	HTML    string // the same as HTML, may be empty

	// MessageID and References are ids without angle brackets. The Message-ID is
	// the same at every attempt; References holds the ids of earlier letters of
	// the same conversation, so that a reader's program shows them as one.
	MessageID  string
	References []string

	// Unsubscribe is the address of a page that ends such letters. With https it
	// must also take the POST of RFC 8058, and the letter says so. Empty for
	// letters nobody subscribed to.
	Unsubscribe string

	// Date is when the letter was written; zero means now. A repetition with the
	// same date is the same letter to the octet, but for the time of a signature.
	Date time.Time
}

// DKIM is a key that signs letters (RFC 6376), published in the DNS under
// SELECTOR._domainkey.DOMAIN.
type DKIM struct {
	Domain   string
	Selector string
	Key      crypto.Signer // RSA of at least 2048 bits, or Ed25519 (RFC 8463)
}

// ParseDKIMKey reads a private key in PEM, PKCS #8 or for RSA PKCS #1.
func ParseDKIMKey(source []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(source)
	if block == nil {
		return nil, errors.New("read DKIM key: there is no PEM block")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		if key, err = x509.ParsePKCS1PrivateKey(block.Bytes); err != nil {
			return nil, errors.New("read DKIM key: neither PKCS #8 nor PKCS #1")
		}
	}
	switch k := key.(type) {
	case *rsa.PrivateKey:
		if k.N.BitLen() < 2048 {
			return nil, fmt.Errorf("read DKIM key: RSA needs 2048 bits, this one has %d", k.N.BitLen())
		}
		return k, nil
	case ed25519.PrivateKey:
		return k, nil
	default:
		return nil, fmt.Errorf("read DKIM key: %T cannot sign", key)
	}
}

// signedFields are the header fields a signature covers. From is named twice,
// so that no second From can be added (RFC 6376 section 8.15); the fields of
// List-Unsubscribe must be covered for the one click to count (RFC 8058
// section 4).
var signedFields = []string{
	"From", "From", "To", "Subject", "Date", "Message-Id", "References", "Mime-Version", "Content-Type",
	"Auto-Submitted", "List-Unsubscribe", "List-Unsubscribe-Post",
}

// messageID is what a Message-ID may be (RFC 5322 section 3.6.4, without quotes
// and comments).
var messageID = regexp.MustCompile(`^[A-Za-z0-9!#$%&'*+/=?^_{|}~.-]{1,200}@[A-Za-z0-9.-]{1,200}$`)

// build writes a letter as RFC 5322 asks, ready for the wire: ASCII, lines ended
// by CRLF and no longer than 998 octets. What a person typed can stand only
// where it belongs: header fields are encoded, addresses parsed, ids matched.
func build(l Letter, from, to string, now time.Time, key *DKIM) ([]byte, error) {
	var h mail.Header
	sender, err := netmail.ParseAddress(from)
	if err != nil {
		return nil, fmt.Errorf("sender: %w", err)
	}
	mailbox, _, err := parseAddress(sender.Address)
	if err != nil {
		return nil, fmt.Errorf("sender: %w", err)
	}
	if l.Text == "" {
		return nil, errors.New("the letter has no text")
	}
	if !l.Date.IsZero() {
		now = l.Date
	}
	h.SetDate(now)
	h.SetAddressList("From", []*mail.Address{{Name: oneLine(sender.Name), Address: mailbox}})
	h.SetAddressList("To", []*mail.Address{{Address: to}})
	h.SetSubject(oneLine(l.Subject))
	for _, id := range append([]string{l.MessageID}, l.References...) {
		if !messageID.MatchString(id) {
			return nil, errors.New("an id of a message is not in the form of one")
		}
	}
	h.SetMessageID(l.MessageID)
	h.SetMsgIDList("References", l.References)
	h.Set("Auto-Submitted", "auto-generated") // RFC 3834 section 5: nobody's holiday reply is wanted
	if l.Unsubscribe != "" {
		if err := setUnsubscribe(&h, l.Unsubscribe); err != nil {
			return nil, err
		}
	}
	var b bytes.Buffer
	if err := writeBody(&b, h, l); err != nil {
		return nil, err
	}
	if b.Len() > longestLetter {
		return nil, fmt.Errorf("the letter has %d octets, at most %d are sent", b.Len(), longestLetter)
	}
	if key == nil {
		return b.Bytes(), nil
	}
	var signed bytes.Buffer
	if err := dkim.Sign(&signed, &b, &dkim.SignOptions{
		Domain: key.Domain, Selector: key.Selector, Signer: key.Key, HeaderKeys: signedFields,
		HeaderCanonicalization: dkim.CanonicalizationRelaxed, BodyCanonicalization: dkim.CanonicalizationRelaxed,
	}); err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return signed.Bytes(), nil
}

func setUnsubscribe(h *mail.Header, address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || strings.ContainsFunc(address, notPlain) {
		return errors.New("the address to unsubscribe at is not one of the web")
	}
	h.Set("List-Unsubscribe", "<"+address+">")
	if u.Scheme == "https" {
		h.Set("List-Unsubscribe-Post", "List-Unsubscribe=One-Click")
	}
	return nil
}

// notPlain reports whether a character cannot stand in a URL in a header field.
func notPlain(r rune) bool { return r <= ' ' || r > '~' || r == '<' || r == '>' }

func writeBody(w io.Writer, h mail.Header, l Letter) error {
	if l.HTML == "" {
		h.SetContentType("text/plain", map[string]string{"charset": "utf-8"})
		part, err := mail.CreateSingleInlineWriter(w, h)
		if err != nil {
			return err
		}
		return writePart(part, l.Text)
	}
	// The boundary comes from the id, so that the same letter is the same octets.
	sum := sha256.Sum256([]byte(l.MessageID))
	h.SetContentType("multipart/alternative", map[string]string{"boundary": "=_" + hex.EncodeToString(sum[:16])})
	parts, err := message.CreateWriter(w, h.Header)
	if err != nil {
		return err
	}
	for _, p := range []struct{ kind, body string }{{"text/plain", l.Text}, {"text/html", l.HTML}} {
		var ph message.Header
		ph.SetContentType(p.kind, map[string]string{"charset": "utf-8"})
		ph.Set("Content-Transfer-Encoding", "quoted-printable")
		part, err := parts.CreatePart(ph)
		if err != nil {
			return err
		}
		if err := writePart(part, p.body); err != nil {
			return err
		}
	}
	return parts.Close()
}

func writePart(part io.WriteCloser, body string) error {
	body = strings.ToValidUTF8(body, "\uFFFD")
	if !strings.HasSuffix(body, "\n") {
		body += "\n"
	}
	if _, err := io.WriteString(part, body); err != nil {
		return err
	}
	return part.Close()
}

// oneLine makes one line of what a person typed into a header field. The
// encoding of the field would keep a line break from ending it; a reader's
// program might still show one, and would decode what looks encoded already.
func oneLine(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Zl, r) || unicode.Is(unicode.Zp, r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "\uFFFD"))
	return strings.ReplaceAll(strings.Join(strings.Fields(text), " "), "=?", "= ?")
}

// errAddress says that a text is no address; it does not repeat it.
var errAddress = errors.New("not an e-mail address")

// localPart is a local part without quotes (RFC 5321 section 4.1.2, Dot-string).
var localPart = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*$")

// hostName is a domain as it stands in the DNS, of two labels or more.
var hostName = regexp.MustCompile(`^[a-z0-9-]+(\.[a-z0-9-]+)+$`)

// domains brings domains in the letters of any country into ASCII and small
// letters (RFC 5891), and refuses what cannot be in the DNS.
var domains = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.StrictDomainName(true), idna.VerifyDNSLength(true))

// parseAddress reads an address without a name and returns it as it stands in
// an envelope, and its domain in lower case; a domain in other letters becomes
// its ASCII form. Quoted local parts and literal addresses are refused: no
// person's mailbox has them, and they are where injections hide.
func parseAddress(raw string) (mailbox, domain string, err error) {
	at := strings.LastIndexByte(raw, '@')
	if at < 1 || at > 64 || len(raw) > 254 || !utf8.ValidString(raw) || !localPart.MatchString(raw[:at]) {
		return "", "", errAddress
	}
	domain, err = domains.ToASCII(raw[at+1:])
	if err != nil || !hostName.MatchString(domain) && domain != "localhost" {
		return "", "", errAddress
	}
	return raw[:at] + "@" + domain, domain, nil
}
