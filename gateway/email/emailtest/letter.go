package emailtest

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/emersion/go-message/mail"
)

// Letter is a letter the server took.
type Letter struct {
	Number int      // counted from 1
	From   string   // the envelope's sender
	To     []string // the envelope's recipients
	Data   []byte   // header and body, as they came
	TLS    bool     // it came inside TLS
	At     time.Time
}

// Content is a letter read as its recipient's program reads it.
type Content struct {
	Header     mail.Header
	Subject    string
	From       string // the mailbox of From, with its name
	Text, HTML string
}

// Content parses the letter.
func (l Letter) Content() (Content, error) {
	r, err := mail.CreateReader(bytes.NewReader(l.Data))
	if err != nil {
		return Content{}, fmt.Errorf("read letter: %w", err)
	}
	defer r.Close()
	c := Content{Header: r.Header}
	if c.Subject, err = r.Header.Subject(); err != nil {
		return Content{}, fmt.Errorf("read subject: %w", err)
	}
	if from, err := r.Header.AddressList("From"); err == nil && len(from) == 1 {
		c.From = strings.TrimSpace(from[0].Name + " <" + from[0].Address + ">")
	}
	for {
		part, err := r.NextPart()
		if err == io.EOF {
			return c, nil
		}
		if err != nil {
			return Content{}, fmt.Errorf("read a part: %w", err)
		}
		header, ok := part.Header.(*mail.InlineHeader)
		if !ok {
			continue
		}
		body, err := io.ReadAll(part.Body)
		if err != nil {
			return Content{}, fmt.Errorf("read a body: %w", err)
		}
		switch kind, _, _ := header.ContentType(); kind {
		case "text/html":
			c.HTML += string(body)
		default:
			c.Text += string(body)
		}
	}
}
