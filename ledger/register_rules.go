package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"zvonok/ledger/money"
	"zvonok/ledger/pg"
)

// Limits of an organisation's rules.
const (
	maxMergeWait = 90 * time.Second
	maxLeaveWait = 15 * time.Minute
	maxAge       = 99 // years
)

// ErrBadRule says that a rule is outside its limits; the error that wraps it
// names the rule and what is allowed.
var ErrBadRule = errors.New("outside its limits")

// RuleChange is what to change of an organisation's own rules, which the
// registry does not know; what is nil stays. The fields are those of Organisation.
type RuleChange struct {
	DebtFloor                                *money.Amount
	PassLife, SamePass, MergeWait, LeaveWait *time.Duration
	CloseAt, QuietFrom, QuietUntil, DigestAt *ClockTime
	CompanionAge                             *int
}

// check names the first rule that is outside its limits.
func (c RuleChange) check() error {
	bad := func(rule, allowed string) error { return fmt.Errorf("%s must be %s: %w", rule, allowed, ErrBadRule) }
	outside := func(d *time.Duration, most time.Duration) bool { return d != nil && (*d < 0 || *d > most) }
	switch {
	case c.DebtFloor != nil && *c.DebtFloor > 0:
		return bad("the debt floor", "zero or below")
	case c.PassLife != nil && (*c.PassLife < time.Second || *c.PassLife > 24*time.Hour):
		return bad("the life of a pass", "from a second to a day")
	case outside(c.SamePass, time.Hour):
		return bad("the time of the same passage", "from zero to an hour")
	case outside(c.MergeWait, maxMergeWait):
		return bad("the wait for a sibling", "from zero to 90 seconds")
	case outside(c.LeaveWait, maxLeaveWait):
		return bad("the wait for a sister building", "from zero to 15 minutes")
	case c.CompanionAge != nil && (*c.CompanionAge < 0 || *c.CompanionAge > maxAge):
		return bad("the age of companions", "from 0 to 99 years")
	}
	return nil
}

// ChangeRules changes rules of an organisation. They hold for what comes after;
// the debt floor also for the wallets of its people, at once (D11).
func ChangeRules(ctx context.Context, q pg.Querier, id OrganisationID, c RuleChange) error {
	if err := c.check(); err != nil {
		return err
	}
	tag, err := q.Exec(ctx, `
		UPDATE ledger.organisation
		   SET debt_floor = coalesce($2, debt_floor), pass_life = coalesce($3, pass_life), same_pass = coalesce($4, same_pass),
		       merge_wait = coalesce($5, merge_wait), leave_wait = coalesce($6, leave_wait),
		       close_at = coalesce(time '00:00' + $7::interval, close_at),
		       quiet_from = coalesce(time '00:00' + $8::interval, quiet_from),
		       quiet_until = coalesce(time '00:00' + $9::interval, quiet_until),
		       digest_at = coalesce(time '00:00' + $10::interval, digest_at),
		       companion_age = coalesce($11, companion_age)
		 WHERE id = $1`, int64(id), c.DebtFloor, c.PassLife, c.SamePass, c.MergeWait, c.LeaveWait,
		(*time.Duration)(c.CloseAt), (*time.Duration)(c.QuietFrom), (*time.Duration)(c.QuietUntil), (*time.Duration)(c.DigestAt),
		c.CompanionAge)
	if err != nil {
		return fmt.Errorf("change the rules of organisation %d: %w", id, err)
	}
	if tag.RowsAffected() == 0 {
		return fmt.Errorf("change the rules of organisation %d: there is none", id)
	}
	return nil
}
