package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"zvonok/access"
	"zvonok/access/phone"
)

type phoneCommands struct {
	Show    phoneShowCommand    `cmd:"" help:"What is known of who holds a representative's phone."`
	Confirm phoneConfirmCommand `cmd:"" help:"Put on record that a phone is in its owner's hands: the school or the support desk has made sure."`
}

type phoneShowCommand struct {
	Phone string `arg:"" help:"The number, as in +79000000001."`
	JSON  bool   `name:"json" help:"Print JSON."`
}

type phoneConfirmCommand struct {
	Phone string `arg:"" help:"The number, as in +79000000001."`
	By    string `required:"" help:"Who has made sure, as in \"support: ticket 5121\"; it is kept."`
	JSON  bool   `name:"json" help:"Print JSON."`
}

// holding is what show prints.
type holding struct {
	Representative int64      `json:"representative"`
	Doubt          string     `json:"doubt,omitempty"`
	DoubtedAt      *time.Time `json:"doubted_at,omitempty"`
	HeardAt        *time.Time `json:"heard_at,omitempty"`
	SIMKnown       bool       `json:"sim_known"`
	ConfirmedAt    *time.Time `json:"confirmed_at,omitempty"`
	ConfirmedBy    string     `json:"confirmed_by,omitempty"`
}

// owner finds whose phone it is.
func (d *database) owner(ctx context.Context, text string) (access.RepresentativeID, error) {
	number, err := phone.Parse(text, "RU")
	if err != nil {
		return 0, usageError{err}
	}
	who, err := access.RepresentativeByPhone(ctx, d.pool, number)
	if errors.Is(err, access.ErrNoRepresentative) {
		return 0, errors.New("no representative has this phone")
	}
	return who.ID, err
}

func (p *phoneShowCommand) Run(ctx context.Context, c *console) error {
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		who, err := d.owner(ctx, p.Phone)
		if err != nil {
			return err
		}
		h, err := access.HoldingOf(ctx, d.pool, who)
		if err != nil {
			return err
		}
		view := holding{
			Representative: int64(who), Doubt: string(h.Doubt), DoubtedAt: given(h.DoubtedAt), HeardAt: given(h.HeardAt),
			SIMKnown: h.SIMKnown, ConfirmedAt: given(h.ConfirmedAt), ConfirmedBy: h.ConfirmedBy,
		}
		if p.JSON {
			return printJSON(c.out, view)
		}
		state := "in its owner's hands, as far as is known"
		switch h.Doubt {
		case access.NewSIM:
			state = "in doubt since " + written(h.DoubtedAt) + ": the operator reported another SIM card"
		case access.Dead:
			state = "in doubt since " + written(h.DoubtedAt) + ": operators had declared it dead before"
		case access.Silence:
			state = "in doubt since " + written(h.DoubtedAt) + ": nothing had been heard of it for long"
		}
		_, err = fmt.Fprintf(c.out, "representative %d\nphone: %s\nlast heard: %s\nSIM card: %s\nconfirmed: %s %s\n", who, state,
			written(h.HeardAt), map[bool]string{true: "known", false: "not known"}[h.SIMKnown], written(h.ConfirmedAt), h.ConfirmedBy)
		return err
	})
}

func (p *phoneConfirmCommand) Run(ctx context.Context, c *console) error {
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		who, err := d.owner(ctx, p.Phone)
		if err != nil {
			return err
		}
		if err := access.ConfirmPhone(ctx, d.pool, who, access.BySystem(p.By), time.Now()); err != nil {
			return err
		}
		if p.JSON {
			return printJSON(c.out, map[string]any{"representative": int64(who), "confirmed": true})
		}
		_, err = fmt.Fprintf(c.out, "the phone of representative %d is confirmed; dials and messages go on\n", who)
		return err
	})
}

// given is a moment, nil for none.
func given(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// written writes a moment for people.
func written(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.Format(moment)
}
