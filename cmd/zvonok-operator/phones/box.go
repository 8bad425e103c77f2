package phones

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"zvonok/gateway/smpp/smpptest"
	"zvonok/templates/gsm"
)

// callTimeout bounds a USSD dialogue in which the network says nothing.
const callTimeout = 3 * time.Minute

// Box is an operator in a box with a page: what the operator takes for a phone
// appears on the page, and what is typed there goes out by the operator.
type Box struct {
	smsc      *smpptest.SMSC
	profile   smpptest.USSDProfile
	shortCode string
	page      atomic.Pointer[Page]

	mu    sync.Mutex
	calls map[string]*smpptest.Call // by phone: a phone has one dialogue
}

// BoxConfig is what a Box needs.
type BoxConfig struct {
	Operator  smpptest.Config // its OnSMS is the box's own
	Profile   string          // how USSD is spoken, one of smpptest.USSDProfiles
	ShortCode string          // where texts from the phones go
}

// StartBox starts the operator. What it takes before there is a page is not shown.
func StartBox(config BoxConfig) (*Box, error) {
	profile, err := smpptest.USSDProfileNamed(config.Profile)
	if err != nil {
		return nil, err
	}
	b := &Box{profile: profile, shortCode: config.ShortCode, calls: map[string]*smpptest.Call{}}
	config.Operator.OnSMS = func(sms smpptest.SMS) {
		if page := b.page.Load(); page != nil {
			page.Received("+"+sms.To, Message{From: sms.From, Text: sms.Text, At: page.config.Now()})
		}
	}
	if b.smsc, err = smpptest.Start(config.Operator); err != nil {
		return nil, fmt.Errorf("start the operator in a box: %w", err)
	}
	return b, nil
}

// Open makes the box's page; its Dial, HangUp and Reply are the box's own.
func (b *Box) Open(config Config) (*Page, error) {
	config.Dial, config.HangUp, config.Reply = b.dial, b.hangUp, b.reply
	page, err := New(config)
	if err != nil {
		return nil, err
	}
	b.page.Store(page)
	return page, nil
}

// Addr is where the gateway binds.
func (b *Box) Addr() string { return b.smsc.Addr() }

// Close unbinds and stops the operator.
func (b *Box) Close(ctx context.Context) error { return b.smsc.Close(ctx) }

// dial begins a dialogue, or answers the open one. The screen appears on the
// page when it comes.
func (b *Box) dial(ctx context.Context, number, text string) error {
	digits := strings.TrimPrefix(number, "+")
	b.mu.Lock()
	call, open := b.calls[number]
	b.mu.Unlock()
	code := strings.HasPrefix(text, "*") || strings.HasPrefix(text, "#")
	if code || !open {
		if !code {
			return errNoDialogue
		}
		var err error
		if call, err = b.smsc.Dial(ctx, b.profile, digits, text); err != nil {
			return fmt.Errorf("dial: %w", err)
		}
		b.mu.Lock()
		b.calls[number] = call
		b.mu.Unlock()
		go b.show(number, call)
		return nil
	}
	if err := call.Press(ctx, text); err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	return nil
}

// show puts the screens of a call on the page until it ends.
func (b *Box) show(number string, call *smpptest.Call) {
	page := b.page.Load()
	defer func() {
		b.mu.Lock()
		if b.calls[number] == call {
			delete(b.calls, number)
		}
		b.mu.Unlock()
	}()
	for {
		ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
		screen, err := call.Screen(ctx)
		if errors.Is(err, smpptest.ErrCallOver) {
			screen, err = call.Screen(ctx) // the last screen may stand there all the same
		}
		cancel()
		if err != nil && !b.holds(number, call) {
			return // hung up, or dialled anew
		}
		if err != nil {
			page.Shown(number, Screen{Text: "Connection problem or invalid MMI code", End: true, At: page.config.Now()})
			return
		}
		page.Shown(number, Screen{Text: screen.Text, End: screen.End, Note: formOf(screen.Text), At: page.config.Now()})
		if screen.End {
			return
		}
	}
}

// holds says whether a call is the phone's open one.
func (b *Box) holds(number string, call *smpptest.Call) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.calls[number] == call
}

// hangUp breaks the phone's dialogue off, as a person does who closes the window.
func (b *Box) hangUp(ctx context.Context, number string) error {
	b.mu.Lock()
	call, open := b.calls[number]
	delete(b.calls, number)
	b.mu.Unlock()
	if !open {
		return nil
	}
	if err := call.Abort(ctx); err != nil {
		return fmt.Errorf("hang up: %w", err)
	}
	return nil
}

// formOf says how much room a screen takes of what old phones show (spec/ussd.md section 3).
func formOf(text string) string {
	if septets, ok := gsm.Septets(text); ok {
		return fmt.Sprintf("GSM-7, %d/160", septets)
	}
	return fmt.Sprintf("UCS-2, %d/70", gsm.Units(text))
}

func (b *Box) reply(ctx context.Context, number, text string) error {
	status, err := b.smsc.SendText(ctx, strings.TrimPrefix(number, "+"), b.shortCode, text)
	if err != nil {
		return fmt.Errorf("send the text: %w", err)
	}
	if status != 0 {
		return fmt.Errorf("send the text: the gateway answered %s", status)
	}
	return nil
}
