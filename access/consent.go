package access

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger"
	"zvonok/ledger/pg"
)

// ConsentID names a consent.
type ConsentID int64

// registryForm stands for the form of a consent that an import has brought.
const registryForm = "registry"

// Consent is a legal representative's consent for one child (D14): who, for
// what, on which form, from when to when.
type Consent struct {
	ID             ConsentID
	Child          ledger.PersonID
	Representative RepresentativeID
	Visits, Meals  bool   // the purposes
	Form           string // the number of the application, or "registry"
	GivenOn        time.Time
	Since          time.Time
	Until          time.Time // zero: open-ended
	WithdrawnAt    time.Time // zero: not withdrawn
}

// Consents returns the consents ever given for a child, newest first. The caller
// asks [May] first.
func Consents(ctx context.Context, q pg.Querier, child ledger.PersonID) ([]Consent, error) {
	return readConsents(ctx, q, `c.child_id = $1`, child)
}

// ConsentsBy returns the consents that a representative has given for the
// children for whom he is legal at that moment, newest first. They are his own
// declarations: he may read them after withdrawing them, too.
func ConsentsBy(ctx context.Context, q pg.Querier, who RepresentativeID, at time.Time) ([]Consent, error) {
	return readConsents(ctx, q, `c.representative_id = $1
		AND EXISTS (SELECT FROM access.legal($2) l WHERE l.child_id = c.child_id AND l.representative_id = $1)`, who, at)
}

func readConsents(ctx context.Context, q pg.Querier, where string, args ...any) ([]Consent, error) {
	rows, err := q.Query(ctx, `
		SELECT c.id, c.child_id, c.representative_id, c.visits, c.meals, c.form, c.given_on, c.since, c.until, c.withdrawn_at
		  FROM access.consent c WHERE `+where+` ORDER BY c.since DESC, c.id DESC`, args...)
	if err != nil {
		return nil, fmt.Errorf("read consents: %w", err)
	}
	consents, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Consent, error) {
		var c Consent
		var until, withdrawn *time.Time
		err := row.Scan(&c.ID, &c.Child, &c.Representative, &c.Visits, &c.Meals, &c.Form, &c.GivenOn, &c.Since,
			&until, &withdrawn)
		c.Until, c.WithdrawnAt = timeOf(until), timeOf(withdrawn)
		return c, err
	})
	if err != nil {
		return nil, fmt.Errorf("read consents: %w", err)
	}
	return consents, nil
}

// Live reports whether the consent holds at that moment.
func (c Consent) Live(at time.Time) bool {
	return !at.Before(c.Since) && (c.Until.IsZero() || at.Before(c.Until)) &&
		(c.WithdrawnAt.IsZero() || at.Before(c.WithdrawnAt))
}

// WithdrawConsent withdraws everything a legal representative has consented to
// for a child. Messages and views that stood on it stop with the commit (D14);
// another legal representative's own consent still stands. It returns
// [ErrNotAllowed] for anybody else, and withdrawing twice changes nothing.
func WithdrawConsent(ctx context.Context, tx pgx.Tx, who RepresentativeID, child ledger.PersonID, now time.Time) error {
	legal, err := isLegal(ctx, tx, who, child, now)
	if err != nil {
		return err
	}
	if !legal {
		return ErrNotAllowed
	}
	// A consent that begins in the future is withdrawn too.
	_, err = tx.Exec(ctx, `
		UPDATE access.consent SET withdrawn_at = $3
		 WHERE child_id = $1 AND representative_id = $2 AND withdrawn_at IS NULL
		   AND (until IS NULL OR until > $3)`, child, who, now)
	if err != nil {
		return fmt.Errorf("withdraw the consent of representative %d for person %d: %w", who, child, err)
	}
	return nil
}
