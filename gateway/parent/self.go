package parent

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/access/phone"
	"zvonok/gateway/carrier"
	"zvonok/gateway/delivery"
	"zvonok/gateway/subscription"
	"zvonok/templates"
)

// SelfView is who is signed in, and how he is reached.
type SelfView struct {
	Phone string `json:"phone" example:"+79000000001"`
	Name  string `json:"name,omitempty" doc:"Absent for somebody invited who has not accepted yet."`
	Email string `json:"email,omitempty"`
	// EmailWaiting is a mailbox whose code has not come back.
	EmailWaiting string        `json:"email_waiting,omitempty" doc:"A new mailbox, which is used when its code has been typed."`
	SMS          ChannelHealth `json:"sms"`
	Mail         ChannelHealth `json:"mail"`
	Settings     SettingsView  `json:"settings"`
	// Confirm is the same for everybody of whose phone nothing is known, so that it tells nothing.
	Confirm      string    `json:"confirm,omitempty" doc:"Given when nothing is known of your phone, or it may be in other hands than its owner's: what a representative does about it, in words (POST /confirmation)."`
	SignedInTill time.Time `json:"signed_in_until"`
}

// ChannelHealth says whether messages of a channel come through.
type ChannelHealth struct {
	OptedOut    bool `json:"opted_out" doc:"Messages were refused: by the word STOP, by unsubscribing, or with the mobile operator."`
	Unreachable bool `json:"unreachable" doc:"The address was refused for good twice."`
}

// SettingsView is how one reads and by which ways.
type SettingsView struct {
	Language  string     `json:"language" enum:"ru,en"`
	Translit  bool       `json:"translit" doc:"SMS in Latin letters."`
	Fallback  []StepView `json:"fallback" nullable:"false" maxItems:"3" doc:"Which channel follows when one does not get through; empty for none."`
	MergeWait *int       `json:"merge_wait_seconds" minimum:"0" maximum:"90" doc:"How long an SMS waits for a sibling's news; null leaves it to the school."`
}

// StepView is a channel in the order of channels.
type StepView struct {
	Channel  string `json:"channel" enum:"sms,email,push"`
	Patience int    `json:"patience_minutes" minimum:"1" maximum:"60" doc:"How long a message waits for the proof of its delivery."`
}

// MailboxWish asks for a new mailbox.
type MailboxWish struct {
	Address string `json:"address" maxLength:"254" example:"name@example.org"`
}

// PhoneWish asks for a new phone.
type PhoneWish struct {
	Phone string `json:"phone" maxLength:"64" example:"+79000000003"`
}

// PhoneCodes are the codes of a change of phone.
type PhoneCodes struct {
	Request string `json:"request" maxLength:"64"`
	OldCode string `json:"old_code" maxLength:"16" doc:"The code that came to the old phone."`
	NewCode string `json:"new_code" maxLength:"16" doc:"The code that came to the new phone."`
}

// AccountTyped is an account number as its owner's child has it.
type AccountTyped struct {
	Account string `json:"account" maxLength:"16" example:"00101519" doc:"The account number of one of your children."`
}

func (s routes) self() {
	do(s, route{
		method: http.MethodPost, path: "/confirmation", id: "confirm-holder",
		summary: "Confirm that the phone you signed in with is still yours",
		text:    "After a change of the SIM card, or a long silence. Five wrong numbers at most; then the school confirms.",
		errors:  []int{http.StatusUnauthorized},
	}, func(ctx context.Context, v visitor, in *struct{ Body AccountTyped }) error {
		if !s.guard.tries.allow(s.guard.address(v.request)) {
			return errFlood
		}
		return s.writeKept(ctx, func(tx pgx.Tx) error {
			right, err := access.ConfirmByAccount(ctx, tx, v.session.Phone, in.Body.Account, v.now)
			if err == nil && !right {
				err = errKept{errAccount}
			}
			return err
		})
	})
	show(s, route{method: http.MethodGet, path: "/me", id: "show-self", summary: "Who you are here, and how you are reached"}, s.me)
	show(s, route{
		method: http.MethodPut, path: "/settings", id: "set-settings", summary: "Choose language, letters and the order of channels",
	}, func(ctx context.Context, v visitor, in *struct{ Body SettingsView }) (SelfView, error) {
		you, err := v.known()
		if err != nil {
			return SelfView{}, err
		}
		order := make([]subscription.Step, len(in.Body.Fallback))
		for i, step := range in.Body.Fallback {
			order[i] = subscription.Step{
				Channel: subscription.Channel(step.Channel), Patience: time.Duration(step.Patience) * time.Minute,
			}
		}
		var wait *time.Duration
		if in.Body.MergeWait != nil {
			seconds := time.Duration(*in.Body.MergeWait) * time.Second
			wait = &seconds
		}
		err = s.write(ctx, func(tx pgx.Tx) error {
			if err := access.SetLetters(ctx, tx, you.ID, in.Body.Language, in.Body.Translit, v.now); err != nil {
				return err
			}
			if err := subscription.SetFallback(ctx, tx, you.ID, order); err != nil {
				return err
			}
			return subscription.SetMergeWait(ctx, tx, you.ID, wait)
		})
		if err != nil {
			return SelfView{}, err
		}
		v.session.Representative.Language, v.session.Representative.Translit = in.Body.Language, in.Body.Translit
		return s.me(ctx, v, nil)
	})

	show(s, route{
		method: http.MethodPut, path: "/email", id: "set-email", status: http.StatusAccepted, summary: "Give a mailbox",
		text: "A code is sent there; the mailbox is used when it has been typed.",
	}, s.giveMailbox)
	do(s, route{
		method: http.MethodPost, path: "/email/confirmation", id: "confirm-email", summary: "Confirm the mailbox by its code",
		errors: []int{http.StatusUnauthorized},
	}, func(ctx context.Context, v visitor, in *struct{ Body CodeTyped }) error {
		you, err := v.known()
		if err != nil {
			return err
		}
		if !s.guard.tries.allow(s.guard.address(v.request)) {
			return errFlood
		}
		return s.writeKept(ctx, func(tx pgx.Tx) error {
			verdict, err := access.FinishMailboxChange(ctx, tx, you.ID, access.RequestID(in.Body.Request), in.Body.Code, v.now)
			if err != nil {
				return err
			}
			if verdict != access.CodeRight {
				return errKept{errCode}
			}
			// Its owner has just read a letter there: what is known against the mailbox is past.
			now, err := access.RepresentativeByID(ctx, tx, you.ID)
			if err != nil {
				return err
			}
			return delivery.OptIn(ctx, tx, subscription.Email, now.Email)
		})
	})
	do(s, route{
		method: http.MethodDelete, path: "/email", id: "drop-email", summary: "Take the mailbox away",
	}, func(ctx context.Context, v visitor, _ *struct{}) error {
		you, err := v.known()
		if err != nil {
			return err
		}
		return s.write(ctx, func(tx pgx.Tx) error { return access.DropMailbox(ctx, tx, you.ID, v.now) })
	})
	do(s, route{
		method: http.MethodPost, path: "/channels/{channel}/resumption", id: "resume-channel",
		summary: "Let messages come again", text: "After STOP, after unsubscribing, or when an address was given up.",
	}, func(ctx context.Context, v visitor, in *struct {
		Channel string `path:"channel" enum:"sms,email"`
	},
	) error {
		you, err := v.known()
		if err != nil {
			return err
		}
		channel, address := subscription.SMS, string(you.Phone)
		if in.Channel == string(subscription.Email) {
			channel, address = subscription.Email, you.Email
		}
		if address == "" {
			return errNothing
		}
		return delivery.OptIn(ctx, s.pool, channel, address)
	})

	show(s, route{
		method: http.MethodPost, path: "/phone", id: "change-phone", status: http.StatusAccepted, summary: "Change the phone",
		text: "A code goes to the old phone and another to the new one. Who has lost the old phone goes to the school.",
	}, s.changePhone)
	do(s, route{
		method: http.MethodPost, path: "/phone/confirmation", id: "confirm-phone", summary: "Confirm the new phone by both codes",
		text: "Rights and wishes stay with you. You are signed out everywhere.", errors: []int{http.StatusUnauthorized, http.StatusConflict},
	}, func(ctx context.Context, v visitor, in *struct{ Body PhoneCodes }) error {
		you, err := v.known()
		if err != nil {
			return err
		}
		if !s.guard.tries.allow(s.guard.address(v.request)) {
			return errFlood
		}
		return s.writeKept(ctx, func(tx pgx.Tx) error {
			b := in.Body
			verdict, err := access.FinishPhoneChange(ctx, tx, you.ID, access.RequestID(b.Request), b.OldCode, b.NewCode, v.now)
			switch {
			case errors.Is(err, access.ErrPhoneTaken):
				return errKept{err}
			case err != nil:
				return err
			case verdict != access.CodeRight:
				return errKept{errCode}
			}
			s.log.InfoContext(ctx, "a phone was changed", "representative", int64(you.ID))
			return nil
		})
	})
}

// known returns the representative, or errNothing for somebody who has not
// accepted an invitation yet.
func (v visitor) known() (access.Representative, error) {
	if v.session.Representative.ID == 0 {
		return access.Representative{}, errNothing
	}
	return v.session.Representative, nil
}

func (s routes) me(ctx context.Context, v visitor, _ *struct{}) (SelfView, error) {
	you := v.session.Representative
	view := SelfView{
		Phone: v.session.Phone.E164(), Email: you.Email, SignedInTill: v.session.ExpiresAt,
		Settings: SettingsView{Language: you.Language, Translit: you.Translit, Fallback: []StepView{}},
	}
	if you.ID == 0 {
		language := templates.RU
		if !strings.HasPrefix(string(v.session.Phone), "7") {
			language = templates.EN
		}
		view.Confirm = templates.Unconfirmed(templates.Style{Language: language})
		return view, nil
	}
	view.Name = fullName(you.Names)
	var err error
	if view.EmailWaiting, err = access.MailboxPending(ctx, s.pool, you.ID, v.now); err != nil {
		return view, err
	}
	who := []access.RepresentativeID{you.ID}
	orders, err := subscription.Fallbacks(ctx, s.pool, who)
	if err != nil {
		return view, err
	}
	for _, step := range orders[you.ID] {
		view.Settings.Fallback = append(view.Settings.Fallback, StepView{string(step.Channel), int(step.Patience / time.Minute)})
	}
	waits, err := subscription.MergeWaits(ctx, s.pool, who)
	if err != nil {
		return view, err
	}
	if wait, chosen := waits[you.ID]; chosen {
		seconds := int(wait / time.Second)
		view.Settings.MergeWait = &seconds
	}
	for channel, health := range map[subscription.Channel]*ChannelHealth{
		subscription.SMS: &view.SMS, subscription.Email: &view.Mail,
	} {
		address := string(you.Phone)
		if channel == subscription.Email {
			address = you.Email
		}
		known, err := delivery.HealthOf(ctx, s.pool, channel, []string{address})
		if err != nil {
			return view, err
		}
		*health = ChannelHealth{known[address].OptedOut, known[address].Suppressed}
	}
	return view, nil
}

// giveMailbox sends the code of a new mailbox there.
func (s routes) giveMailbox(ctx context.Context, v visitor, in *struct{ Body MailboxWish }) (CodeAnswer, error) {
	you, err := v.known()
	if err != nil {
		return CodeAnswer{}, err
	}
	var change access.MailboxChange
	err = s.write(ctx, func(tx pgx.Tx) error {
		if change, err = access.StartMailboxChange(ctx, tx, you.ID, in.Body.Address, v.now); err != nil {
			return err
		}
		letter := templates.MailboxCode{Code: change.Code, Minutes: codeMinutes}.Mail(templates.Language(you.Language))
		_, err := s.desk.Enqueue(ctx, tx, v.now, []delivery.Draft{{
			Representative: you.ID, Topic: codeTopic, Channel: subscription.Email, Address: change.Email,
			Priority: carrier.Urgent, Again: delivery.Never, Expires: v.now.Add(access.CodeLife),
			Letter: &delivery.Letter{Subject: letter.Subject, Text: letter.Text, HTML: letter.HTML},
		}})
		return err
	})
	return codeAnswer(change.ID), err
}

// changePhone sends a code to the old phone and another to the new one, whoever
// has it.
func (s routes) changePhone(ctx context.Context, v visitor, in *struct{ Body PhoneWish }) (CodeAnswer, error) {
	you, err := v.known()
	if err != nil {
		return CodeAnswer{}, err
	}
	number, err := phone.Parse(in.Body.Phone, region)
	if err != nil {
		return CodeAnswer{}, err
	}
	if !s.guard.codes.allow(s.guard.address(v.request)) {
		return CodeAnswer{}, errFlood
	}
	var change access.PhoneChange
	err = s.write(ctx, func(tx pgx.Tx) error {
		if change, err = access.StartPhoneChange(ctx, tx, you.ID, number, v.now); err != nil {
			return err
		}
		for to, code := range map[phone.Number]string{change.OldPhone: change.OldCode, change.NewPhone: change.NewCode} {
			text := templates.LoginCode{Code: code, Minutes: codeMinutes, Phone: true}.SMS
			if err := s.send(ctx, tx, to, text, v.now); err != nil {
				return err
			}
		}
		return nil
	})
	return codeAnswer(change.ID), err
}
