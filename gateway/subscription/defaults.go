package subscription

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/ledger"
)

// Newcomer is somebody who may know of a child from now on.
type Newcomer struct {
	Child          ledger.PersonID
	Representative access.RepresentativeID
	// Channels are those ticked on the application; empty means SMS.
	Channels []Channel
}

// NewcomersOf returns whom an application has made newcomers: the applicant by
// the channels ticked on the form, trusted persons by SMS, companions not at all.
func NewcomersOf(form access.Application, taken access.Taken) []Newcomer {
	var ticked []Channel
	for _, channel := range form.Channels {
		ticked = append(ticked, Channel(channel))
	}
	var newcomers []Newcomer
	for _, g := range taken.Granted {
		switch g.Role {
		case access.Legal:
			newcomers = append(newcomers, Newcomer{g.Child, g.Representative, ticked})
		case access.Trusted:
			newcomers = append(newcomers, Newcomer{Child: g.Child, Representative: g.Representative})
		}
	}
	return newcomers
}

// Welcome gives newcomers the wishes everybody begins with (spec/notices.md,
// Subscriptions): passes and top-ups at the moment they happen, and a lower
// threshold of [DefaultThreshold], each by the channels of the application; no
// digest. Who has wishes for the child already, or has chosen to have none, is
// left alone, so that a repeated call changes nothing.
func Welcome(ctx context.Context, tx pgx.Tx, newcomers []Newcomer) error {
	var children []ledger.PersonID
	var who []access.RepresentativeID
	var channels []Channel
	for _, n := range newcomers {
		if len(n.Channels) == 0 {
			n.Channels = []Channel{SMS}
		}
		for _, channel := range n.Channels {
			children, who, channels = append(children, n.Child), append(who, n.Representative), append(channels, channel)
		}
	}
	return welcome(ctx, tx, `
		SELECT DISTINCT child_id, representative_id, channel
		  FROM unnest($1::bigint[], $2::bigint[], $3::text[]) AS n (child_id, representative_id, channel)`,
		children, who, channels)
}

// welcome gives the first wishes to those whom a query names by child,
// representative and channel.
func welcome(ctx context.Context, tx pgx.Tx, newcomers string, args ...any) error {
	rows, err := tx.Query(ctx, `
		WITH newcomer AS MATERIALIZED (
		    SELECT n.child_id, n.representative_id, n.channel
		      FROM (`+newcomers+`) n
		     WHERE NOT EXISTS (SELECT FROM subscription.subscription s
		                        WHERE s.child_id = n.child_id AND s.representative_id = n.representative_id)
		       AND NOT EXISTS (SELECT FROM subscription.choice c
		                        WHERE c.child_id = n.child_id AND c.representative_id = n.representative_id)
		), wish AS (
		    INSERT INTO subscription.subscription (child_id, topic, mode, representative_id, channel)
		    SELECT n.child_id, t.topic, 'now', n.representative_id, n.channel
		      FROM newcomer n CROSS JOIN (VALUES ('pass'), ('topup'), ('threshold')) t (topic)
		     ORDER BY 1, 2, 4
		)
		SELECT DISTINCT child_id, representative_id FROM newcomer`, args...)
	if err != nil {
		return fmt.Errorf("give newcomers their first wishes: %w", err)
	}
	thresholds, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (ledger.Threshold, error) {
		t := ledger.Threshold{Amount: DefaultThreshold}
		err := row.Scan(&t.Person, &t.Owner)
		return t, err
	})
	if err != nil {
		return fmt.Errorf("give newcomers their first wishes: %w", err)
	}
	return loadThresholds(ctx, tx, thresholds)
}

// loadBatch is how many thresholds go to the books at a time: the arguments of
// one statement stay within a few megabytes.
const loadBatch = 50_000

func loadThresholds(ctx context.Context, tx pgx.Tx, thresholds []ledger.Threshold) error {
	for len(thresholds) > 0 {
		n := min(loadBatch, len(thresholds))
		if err := ledger.LoadThresholds(ctx, tx, thresholds[:n]); err != nil {
			return err
		}
		thresholds = thresholds[n:]
	}
	return nil
}

// Enrol takes an application with all that it brings: what [access.TakeApplication]
// grants, and the first wishes of those who are newcomers by it. Its errors are
// those of TakeApplication.
func Enrol(ctx context.Context, tx pgx.Tx, form access.Application, by access.Actor, now time.Time) (access.Taken, error) {
	taken, err := access.TakeApplication(ctx, tx, form, by, now)
	if err != nil {
		return access.Taken{}, err
	}
	return taken, Welcome(ctx, tx, NewcomersOf(form, taken))
}

// EnrolPetition accepts an electronic application for a school, with the first
// wishes of its newcomers. Its errors are those of [access.Decisions.Accept].
func EnrolPetition(
	ctx context.Context, tx pgx.Tx, decisions *access.Decisions, organisation ledger.OrganisationID, id access.PetitionID, by access.Actor, now time.Time,
) (access.Taken, error) {
	form, taken, err := decisions.Accept(ctx, tx, organisation, id, by, now)
	if err != nil {
		return access.Taken{}, err
	}
	return taken, Welcome(ctx, tx, NewcomersOf(form, taken))
}
