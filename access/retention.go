package access

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger/pg"
)

// How long what has served its purpose is kept (spec/practice.md). The act of
// destruction is the protocol that [Forget] returns.
const (
	keepPeople      = 29 * 24 * time.Hour // after the last right or consent ended: within 30 days, and a run is due once a day
	keepInvitations = 30 * 24 * time.Hour // after they expired
	keepCodes       = 24 * time.Hour      // after they expired; so long they are counted
)

// Terms that end by the calendar.
const (
	keepViewsYears = 3 // the limitation of claims
	keepCardsYears = 1 // after they were returned or destroyed
)

// Forgotten is the protocol of one run of [Forget]: how many rows of each sort
// were destroyed or emptied.
type Forgotten struct {
	Representatives int64 `json:"representatives"` // names, phones and mailboxes erased
	Applications    int64 `json:"applications"`    // forms emptied
	Petitions       int64 `json:"petitions"`       // electronic forms emptied
	Invitations     int64 `json:"invitations"`
	Codes           int64 `json:"codes"`
	Cards           int64 `json:"cards"`
	Views           int64 `json:"views"`
}

// Forget destroys what is past its time and tells how much it was. People whose
// last right to every child ended 29 days ago or longer, or whose children's
// consents all did, are erased: the row stays without name, phone and mailbox,
// so that history still has somebody to point at.
func Forget(ctx context.Context, tx pgx.Tx, now time.Time) (Forgotten, error) {
	var f Forgotten
	before := now.Add(-keepPeople)
	// Somebody is still needed while a right of his lived after that moment and
	// a consent for that child did; a companion needs no consent. What the
	// moment does not decide, a right or a consent yet to begin, keeps him too.
	tag, err := tx.Exec(ctx, `
		WITH gone AS MATERIALIZED (
		SELECT r.id, r.phone, r.email
		  FROM access.representative r
		 WHERE r.erased_at IS NULL AND r.created_at < $1
		   AND NOT EXISTS (
		        SELECT FROM access.guardian g
		         WHERE g.representative_id = r.id
		           AND (g.until IS NULL OR g.until > $1) AND (g.revoked_at IS NULL OR g.revoked_at > $1)
		           AND (g.role = 'companion'
		                OR EXISTS (SELECT FROM access.consent c
		                            WHERE c.child_id = g.child_id
		                              AND (c.until IS NULL OR c.until > $1)
		                              AND (c.withdrawn_at IS NULL OR c.withdrawn_at > $1))))
		   AND NOT EXISTS (SELECT FROM access.card k
		                    WHERE k.representative_id = r.id AND k.state NOT IN ('returned', 'destroyed'))
		   AND NOT EXISTS (SELECT FROM access.petition q
		                    WHERE q.representative_id = r.id AND q.state = 'submitted' AND q.submitted_at > $3)
		), former AS (
		DELETE FROM access.former_address f USING gone WHERE f.representative_id = gone.id RETURNING f.representative_id, f.address
		), had AS MATERIALIZED (
		SELECT id, phone AS address FROM gone WHERE phone IS NOT NULL
		 UNION SELECT id, email FROM gone WHERE email <> ''
		 UNION SELECT representative_id, address FROM former
		), noted AS (
		INSERT INTO access.erased_address (representative_id, address) SELECT id, address FROM had
		)
		UPDATE access.representative r
		   SET erased_at = $2, phone = NULL, sim = NULL, heard_at = NULL, doubt = NULL, doubted_at = NULL, email = '', family_name = '', given_name = '', patronymic = '', born_on = NULL,
		       erased_keys = ARRAY(SELECT sha256(convert_to(h.id || ':' || h.address, 'UTF8')) FROM had h
		                            WHERE h.id = r.id AND h.address NOT LIKE '%@%')
		  FROM gone
		 WHERE r.id = gone.id`, before, now, now.Add(-PetitionLife))
	if err != nil {
		return Forgotten{}, fmt.Errorf("erase representatives: %w", err)
	}
	f.Representatives = tag.RowsAffected()

	for _, step := range []struct {
		what, sql string
		args      []any
		count     *int64
	}{
		{"empty applications", `
			UPDATE access.application a SET form = '{}'
			  FROM access.representative r
			 WHERE r.id = a.representative_id AND r.erased_at IS NOT NULL AND a.form <> '{}'`, nil, &f.Applications},
		{
			"end petitions that nobody decided on", `
			UPDATE access.petition SET state = 'expired', decided_at = $1, decided_by = 'system:retention'
			 WHERE state = 'submitted' AND submitted_at < $2`,
			[]any{now, now.Add(-PetitionLife)},
			new(int64),
		},
		{
			// What was accepted stands in the application.
			"empty petitions", `
			UPDATE access.petition SET form = '{}'
			 WHERE form <> '{}' AND submitted_at < $1 AND (decided_at < $1 OR state = 'expired')`,
			[]any{before},
			&f.Petitions,
		},
		{
			"delete invitations", `DELETE FROM access.invitation WHERE expires_at < $1`,
			[]any{now.Add(-keepInvitations)},
			&f.Invitations,
		},
		{
			"delete changes of phone", `DELETE FROM access.phone_change WHERE started_at < $1`,
			[]any{now.Add(-keepCodes - CodeLife)},
			new(int64),
		},
		{
			"delete changes of mailbox", `DELETE FROM access.mailbox_change WHERE started_at < $1`,
			[]any{now.Add(-keepCodes - CodeLife)},
			new(int64),
		},
		{
			// Also those of phones nobody has here any more.
			"delete ended sessions", `
			DELETE FROM access.session s
			 WHERE s.expires_at <= $1 OR s.seen_at <= $2
			    OR NOT EXISTS (SELECT FROM access.representative r WHERE r.phone = s.phone)
			   AND NOT EXISTS (SELECT FROM access.invitation i
			                    WHERE i.phone = s.phone AND i.state = 'pending' AND i.expires_at > $1)`,
			[]any{now, now.Add(-SessionIdle)},
			new(int64),
		},
		{"delete codes", `DELETE FROM access.code WHERE expires_at < $1`, []any{now.Add(-keepCodes)}, &f.Codes},
	} {
		tag, err := tx.Exec(ctx, step.sql, step.args...)
		if err != nil {
			return Forgotten{}, fmt.Errorf("%s: %w", step.what, err)
		}
		*step.count = tag.RowsAffected()
	}
	if err := tx.QueryRow(ctx, `SELECT access.forget_cards($1), access.forget_views($2)`,
		now.AddDate(-keepCardsYears, 0, 0), now.AddDate(-keepViewsYears, 0, 0)).Scan(&f.Cards, &f.Views); err != nil {
		return Forgotten{}, fmt.Errorf("forget cards and views: %w", err)
	}
	return f, nil
}

// Destruction is the act of one run of retention.
type Destruction struct {
	ID        int64            `json:"id"`
	At        time.Time        `json:"at"`
	By        string           `json:"by"`
	Destroyed map[string]int64 `json:"destroyed"` // rows, by what they were
}

// NoteDestroyed notes what the caller's transaction has destroyed, for the act
// at the end of the run: entries, by what they were.
func NoteDestroyed(ctx context.Context, tx pgx.Tx, destroyed map[string]int64) error {
	var (
		whats   []string
		entries []int64
	)
	for what, n := range destroyed {
		whats, entries = append(whats, what), append(entries, n)
	}
	if _, err := tx.Exec(ctx, `
		INSERT INTO access.destroyed AS d (what, entries)
		SELECT what, entries FROM unnest($1::text[], $2::bigint[]) AS t (what, entries) ORDER BY what
		    ON CONFLICT (what) DO UPDATE SET entries = d.entries + excluded.entries`, whats, entries); err != nil {
		return fmt.Errorf("note what was destroyed: %w", err)
	}
	return nil
}

// RecordDestruction writes the act of what was noted since the last one into the
// protocol, which the application cannot change afterwards.
func RecordDestruction(ctx context.Context, tx pgx.Tx, by Actor, now time.Time) (Destruction, error) {
	act := Destruction{At: now, By: by.String()}
	err := tx.QueryRow(ctx, `
		WITH taken AS (DELETE FROM access.destroyed RETURNING what, entries)
		INSERT INTO access.destruction (at, actor_kind, actor_id, destroyed)
		SELECT $1, $2, $3, coalesce(jsonb_object_agg(what, entries), '{}') FROM taken
		RETURNING id, destroyed`, now, by.Kind, by.ID).Scan(&act.ID, &act.Destroyed)
	if err != nil {
		return Destruction{}, fmt.Errorf("write the act of destruction: %w", err)
	}
	return act, nil
}

// ErasedAddress is where messages to somebody erased went.
type ErasedAddress struct {
	Representative RepresentativeID
	Address        string // a phone or a mailbox
}

// ErasedAddresses lists addresses of the erased that may still stand elsewhere,
// at most limit of them.
func ErasedAddresses(ctx context.Context, q pg.Querier, limit int) ([]ErasedAddress, error) {
	rows, err := q.Query(ctx, `
		SELECT representative_id, address FROM access.erased_address ORDER BY representative_id, address LIMIT $1`, limit)
	if err != nil {
		return nil, fmt.Errorf("list the addresses of the erased: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[ErasedAddress])
	if err != nil {
		return nil, fmt.Errorf("list the addresses of the erased: %w", err)
	}
	return list, nil
}

// DropErasedAddresses forgets addresses that stand nowhere any more.
func DropErasedAddresses(ctx context.Context, tx pgx.Tx, list []ErasedAddress) error {
	representatives, addresses := make([]int64, len(list)), make([]string, len(list))
	for i, e := range list {
		representatives[i], addresses[i] = int64(e.Representative), e.Address
	}
	if _, err := tx.Exec(ctx, `
		DELETE FROM access.erased_address e
		 USING unnest($1::bigint[], $2::text[]) AS t (representative_id, address)
		 WHERE e.representative_id = t.representative_id AND e.address = t.address`, representatives, addresses); err != nil {
		return fmt.Errorf("forget the addresses of the erased: %w", err)
	}
	return nil
}

// Destructions lists the acts, the latest first, at most limit of them.
func Destructions(ctx context.Context, q pg.Querier, limit int) ([]Destruction, error) {
	rows, err := q.Query(ctx, `
		SELECT id, at, actor_kind || ':' || actor_id, destroyed FROM access.destruction ORDER BY at DESC, id DESC LIMIT $1`, limit)
	if err != nil {
		return nil, fmt.Errorf("list the acts of destruction: %w", err)
	}
	acts, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Destruction])
	if err != nil {
		return nil, fmt.Errorf("list the acts of destruction: %w", err)
	}
	return acts, nil
}
