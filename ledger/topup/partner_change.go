package topup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"zvonok/ledger/money"
	"zvonok/ledger/pg"
)

// maxPartnerLog bounds what is read of a partner's log.
const maxPartnerLog = 200

// PartnerChange is what is to be otherwise with a partner; what is nil stays.
type PartnerChange struct {
	PaymentCodes []string
	Allow        []netip.Prefix
	// Login alone keeps the password. An empty one ends Basic authentication.
	Login, Password *string
	// Secret is what its requests are signed with from now on; empty: they are not.
	Secret    *string
	Show      *Show
	Min, Max  *money.Amount
	Codes     map[Outcome]int
	Layout    *Layout
	OwnFormat bool // its registries are in our own format again
	MayCancel *bool
	TimeZone  *string
}

// ChangePartner changes settings of a partner, all of them or none, and logs which
// ones and that by did it. Running gateways follow within two seconds. It returns
// the partner as it is then and the names of what is otherwise. A setting that
// cannot be is an ErrPartner, as it is in AddPartner.
func ChangePartner(
	ctx context.Context, pool *pgxpool.Pool, name string, change PartnerChange, by string, now time.Time,
) (p Partner, changed []string, err error) {
	if err := checkWho(by); err != nil {
		return p, nil, fmt.Errorf("change a partner: %w", err)
	}
	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		had, err := lockPartner(ctx, tx, name)
		if err != nil {
			return err
		}
		if p, err = change.of(had).partner(ctx, tx, had); err != nil {
			return err
		}
		if changed = had.otherwise(&p); len(changed) == 0 {
			return nil
		}
		codes, layout, err := p.written()
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `
			UPDATE topup.partner
			   SET payment_codes = $2, allow = $3, login = $4, password_salt = $5, password_hash = $6, secret = $7, show = $8,
			       min_amount = $9, max_amount = $10, codes = $11, layout = $12, may_cancel = $13, time_zone = $14
			 WHERE id = $1`,
			int64(p.ID), p.PaymentCodes, p.Allow, p.Login, p.salt, p.hash, p.secret, string(p.Show),
			int64(p.Min), int64(p.Max), codes, layout, p.MayCancel, p.TimeZone); err != nil {
			return err
		}
		return logPartner(ctx, tx, &p, "changed", changed, by, now)
	})
	if errors.Is(err, ErrPartner) {
		return Partner{}, nil, err
	}
	if err != nil {
		return Partner{}, nil, fmt.Errorf("change the partner %s: %w", name, err)
	}
	return p, changed, nil
}

// of returns what the partner is to be.
func (c PartnerChange) of(p *Partner) NewPartner {
	n := NewPartner{
		Name: p.Name, Dialect: p.Dialect, PaymentCodes: p.PaymentCodes, Allow: p.Allow, Login: p.Login, Secret: p.secret,
		Show: p.Show, Min: p.Min, Max: p.Max, Codes: p.Codes, Layout: p.Layout, MayCancel: p.MayCancel,
		TimeZone: p.TimeZone, Limits: p.Limits,
	}
	if c.PaymentCodes != nil {
		n.PaymentCodes = c.PaymentCodes
	}
	if c.Allow != nil {
		n.Allow = c.Allow
	}
	if c.Codes != nil {
		n.Codes = c.Codes
	}
	if c.Layout != nil || c.OwnFormat {
		n.Layout = c.Layout
	}
	set(&n.Login, c.Login)
	set(&n.Password, c.Password)
	set(&n.Secret, c.Secret)
	set(&n.Show, c.Show)
	set(&n.Min, c.Min)
	set(&n.Max, c.Max)
	set(&n.MayCancel, c.MayCancel)
	set(&n.TimeZone, c.TimeZone)
	return n
}

func set[T any](value, to *T) {
	if to != nil {
		*value = *to
	}
}

// otherwise names the settings in which two states of a partner differ.
func (p *Partner) otherwise(o *Partner) (names []string) {
	for _, setting := range []struct {
		name string
		same bool
	}{
		{"payees", slices.Equal(p.PaymentCodes, o.PaymentCodes)},
		{"allow", slices.Equal(p.Allow, o.Allow)},
		{"user", p.Login == o.Login},
		{"password", bytes.Equal(p.hash, o.hash)},
		{"secret", p.secret == o.secret},
		{"show", p.Show == o.Show},
		{"min", p.Min == o.Min},
		{"max", p.Max == o.Max},
		{"codes", maps.Equal(p.Codes, o.Codes)},
		{"layout", reflect.DeepEqual(p.Layout, o.Layout)},
		{"may-cancel", p.MayCancel == o.MayCancel},
		{"time-zone", p.TimeZone == o.TimeZone},
	} {
		if !setting.same {
			names = append(names, setting.name)
		}
	}
	return names
}

// DisablePartner ends that a partner's requests are answered, or lets them be
// answered again, and logs that by did it. Running gateways follow within two
// seconds. Its registries and refunds go on. One that is so already is an ErrPartner.
func DisablePartner(ctx context.Context, pool *pgxpool.Pool, name string, disabled bool, by string, now time.Time) (p Partner, err error) {
	action := map[bool]string{true: "disabled", false: "enabled"}[disabled]
	if err := checkWho(by); err != nil {
		return p, fmt.Errorf("have a partner %s: %w", action, err)
	}
	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		had, err := lockPartner(ctx, tx, name)
		if err != nil {
			return err
		}
		if had.Disabled == disabled {
			return refuse("%s is %s already", name, action)
		}
		p = *had
		p.Disabled = disabled
		if _, err := tx.Exec(ctx, `UPDATE topup.partner SET disabled = $2 WHERE id = $1`, int64(p.ID), disabled); err != nil {
			return err
		}
		return logPartner(ctx, tx, &p, action, []string{}, by, now)
	})
	if errors.Is(err, ErrPartner) {
		return Partner{}, err
	}
	if err != nil {
		return Partner{}, fmt.Errorf("have the partner %s %s: %w", name, action, err)
	}
	return p, nil
}

// lockPartner returns the partner of a name, which nobody else changes until the
// transaction ends.
func lockPartner(ctx context.Context, tx pgx.Tx, name string) (*Partner, error) {
	if _, err := tx.Exec(ctx, `SELECT FROM topup.partner WHERE name = $1 FOR NO KEY UPDATE`, name); err != nil {
		return nil, fmt.Errorf("lock it: %w", err)
	}
	return findPartner(ctx, tx, name)
}

func logPartner(ctx context.Context, tx pgx.Tx, p *Partner, action string, settings []string, by string, now time.Time) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO topup.partner_log (partner_id, at, action, settings, actor) VALUES ($1, $2, $3, $4, $5)`,
		int64(p.ID), now, action, settings, by)
	if err != nil {
		return fmt.Errorf("log it: %w", err)
	}
	return nil
}

// ChangeOfPartner is that a partner was changed, disabled or enabled.
type ChangeOfPartner struct {
	At     time.Time `json:"at"`
	Action string    `json:"action"`
	// Settings are the names of what was changed.
	Settings []string `json:"settings"`
	By       string   `json:"by"`
}

// ChangesOfPartner returns the last 200 changes of a partner, the newest first.
func ChangesOfPartner(ctx context.Context, q pg.Querier, name string) ([]ChangeOfPartner, error) {
	p, err := findPartner(ctx, q, name)
	if err != nil {
		return nil, err
	}
	rows, err := q.Query(ctx, `
		SELECT at, action, settings, actor FROM topup.partner_log WHERE partner_id = $1 ORDER BY id DESC LIMIT $2`,
		int64(p.ID), maxPartnerLog)
	if err != nil {
		return nil, fmt.Errorf("read the changes of a partner: %w", err)
	}
	changes, err := pgx.CollectRows(rows, pgx.RowToStructByPos[ChangeOfPartner])
	if err != nil {
		return nil, fmt.Errorf("read the changes of a partner: %w", err)
	}
	return changes, nil
}
