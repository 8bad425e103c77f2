package access

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access/phone"
	"zvonok/ledger/pg"
)

// Doubt is why the one who holds a phone may be another than its owner.
type Doubt string

// The doubts: a closed list.
const (
	NewSIM  Doubt = "sim"     // the operator reported another SIM card than the one known
	Silence Doubt = "silence" // nothing was heard of the phone for long
	Dead    Doubt = "dead"    // operators had declared it dead, and yet something came from it
)

// confirmTries is how often an account number may be tried for one doubt.
const confirmTries = 5

// SIMHash returns the function that hashes IMSIs for [Heard] by a key of the deployment. An IMSI is never stored: it
// names a person anywhere, and there are few enough of them to try all against a hash without a key.
func SIMHash(key []byte) func(imsi string) string {
	sum := func(text string) []byte {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(text))
		return mac.Sum(nil)
	}
	name := sum("the name of this key")[:4]
	return func(imsi string) string { return string(name) + string(sum("imsi " + imsi)[:16]) }
}

// Heard is something that came from a phone: a dial, a text, a code typed.
type Heard struct {
	Phone phone.Number
	// SIM is the keyed hash of the IMSI the operator reported, nil when it reported none. Its first four octets name the
	// key: hashes by different keys tell nothing of each other.
	SIM []byte
	// Silence is after how long without a sign of life the phone counts as possibly another's; 0 is never.
	Silence time.Duration
	// Dead says that operators have declared the phone dead since its owner was last put on record.
	Dead bool
	At   time.Time
}

// Hearing is what followed.
type Hearing struct {
	Representative RepresentativeID // 0: nobody's phone
	Doubt          Doubt            // "" when there is none
	Compared       bool             // a SIM card was reported and one was known
	Raised         bool             // the doubt was raised by this
}

// One statement for known and unknown phones, so that both take as long. It writes for a known phone when there is
// something new, and otherwise once in a twelfth of the silence that counts, a month of a year: a dial that writes waits
// for the disk.
//
// A doubt ends when the SIM card known is in the phone again, and when the owner has been put on record since. A SIM
// card in doubt is not learnt, nor does it count as a sign of the owner's life.
const hear = `
	WITH known AS (
	    SELECT r.id, r.sim, r.heard_at, r.doubt, r.doubted_at,
	           substr(r.sim, 1, 4) = substr($2::bytea, 1, 4) AS comparable,
	           greatest(r.created_at, r.confirmed_at, o.recorded_at) AS recorded_at
	      FROM access.representative r
	     CROSS JOIN LATERAL (
	            SELECT max(greatest(g.created_at,
	                                (SELECT max(c.created_at) FROM access.consent c
	                                  WHERE c.child_id = g.child_id AND c.representative_id = g.representative_id)))
	                   AS recorded_at
	              FROM access.guardian g WHERE g.representative_id = r.id) o
	     WHERE r.phone = $1
	), judged AS (
	    SELECT k.*,
	           CASE WHEN $5 THEN coalesce(doubt, 'dead')
	                WHEN doubt IS NOT NULL AND recorded_at > doubted_at THEN NULL
	                WHEN doubt = 'sim' AND sim = $2 THEN NULL
	                WHEN doubt IS NOT NULL THEN doubt
	                WHEN comparable AND sim <> $2 THEN 'sim'
	                WHEN $4::interval > interval '0' AND greatest(heard_at, recorded_at) < $3::timestamptz - $4 THEN 'silence'
	           END AS now_doubt
	      FROM known k
	), written AS (
	    UPDATE access.representative r
	       SET doubt = j.now_doubt,
	           doubted_at = CASE WHEN j.now_doubt IS NOT NULL THEN coalesce(j.doubted_at, $3) END,
	           doubt_tries = CASE WHEN j.now_doubt IS NOT NULL THEN r.doubt_tries ELSE 0 END,
	           heard_at = CASE WHEN j.now_doubt IS NULL THEN greatest($3, j.heard_at) ELSE j.heard_at END,
	           sim = CASE WHEN j.now_doubt IS NULL THEN coalesce($2, j.sim) ELSE j.sim END
	      FROM judged j
	     WHERE r.id = j.id
	       AND (j.now_doubt IS DISTINCT FROM j.doubt
	            OR j.now_doubt IS NULL AND ($2 IS NOT NULL AND j.sim IS DISTINCT FROM $2
	                                        OR $4 > interval '0' AND greatest(j.heard_at, j.recorded_at) < $3::timestamptz - $4 / 12))
	)
	SELECT id, coalesce(now_doubt, ''), coalesce(comparable, false), now_doubt IS NOT NULL AND doubt IS NULL FROM judged`

// Hear notes that something came from a phone, and answers whether its holder may be another than its owner (spec/ussd.md
// section 6, fault 53). While there is a doubt [ChildrenOf] and [ChildOf] find nothing by this phone. It is asked before
// anything is answered to the phone.
func Hear(ctx context.Context, q pg.Querier, h Heard) (Hearing, error) {
	return scanHearing(q.QueryRow(ctx, hear, h.Phone, h.SIM, h.At, h.Silence, h.Dead))
}

// AskHearing puts [Hear] into a batch, before the questions that are to be answered by what it finds. The hearing is
// known when the batch has been read.
func AskHearing(b *pgx.Batch, h Heard) *Hearing {
	heard := &Hearing{}
	b.Queue(hear, h.Phone, h.SIM, h.At, h.Silence, h.Dead).QueryRow(func(row pgx.Row) error {
		var err error
		*heard, err = scanHearing(row)
		return err
	})
	return heard
}

func scanHearing(row pgx.Row) (Hearing, error) {
	var heard Hearing
	err := row.Scan(&heard.Representative, &heard.Doubt, &heard.Compared, &heard.Raised)
	if errors.Is(err, pgx.ErrNoRows) {
		return Hearing{}, nil
	}
	if err != nil {
		return Hearing{}, fmt.Errorf("note that a phone was heard: %w", err)
	}
	return heard, nil
}

// TakeDoubtsBack ends the doubts about some SIM cards: what reported them is broken.
func TakeDoubtsBack(ctx context.Context, q pg.Querier, who []RepresentativeID) error {
	if _, err := q.Exec(ctx, `
		UPDATE access.representative SET doubt = NULL, doubted_at = NULL, doubt_tries = 0
		 WHERE id = ANY ($1) AND doubt = 'sim'`, who); err != nil {
		return fmt.Errorf("take back the doubts about %d phones: %w", len(who), err)
	}
	return nil
}

// ConfirmPhone puts on record that a phone is in its owner's hands; the next SIM card reported is the known one. It
// returns [ErrNoRepresentative].
func ConfirmPhone(ctx context.Context, q pg.Querier, who RepresentativeID, by Actor, now time.Time) error {
	tag, err := q.Exec(ctx, `
		UPDATE access.representative
		   SET doubt = NULL, doubted_at = NULL, doubt_tries = 0, sim = NULL, heard_at = $2, confirmed_at = $2,
		       confirmed_by = $3
		 WHERE id = $1 AND erased_at IS NULL`, who, now, string(by.Kind)+":"+by.ID)
	if err != nil {
		return fmt.Errorf("confirm the phone of representative %d: %w", who, err)
	}
	if tag.RowsAffected() == 0 {
		return ErrNoRepresentative
	}
	return nil
}

// ConfirmByAccount confirms a phone to somebody who has proved to hold it and knows the account number of a child that
// is the owner's: who was given the number by chance knows none. The fifth wrong number was the last; after that it is
// the school's to confirm. The caller commits whatever the answer, because a wrong try is counted.
func ConfirmByAccount(ctx context.Context, tx pgx.Tx, number phone.Number, account string, now time.Time) (bool, error) {
	owner, err := RepresentativeByPhone(ctx, tx, number)
	if errors.Is(err, ErrNoRepresentative) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	who := owner.ID
	var right bool
	err = tx.QueryRow(ctx, `
		WITH tried AS (
		    UPDATE access.representative SET doubt_tries = doubt_tries + 1
		     WHERE id = $1 AND doubt IS NOT NULL AND doubt_tries < $4 RETURNING id
		)
		SELECT EXISTS (SELECT FROM tried t
		                 JOIN access.rights($3) r ON r.representative_id = t.id AND r.verdict = 'yes'
		                 JOIN ledger.account a ON a.person_id = r.child_id AND a.number = $2)`,
		who, account, now, confirmTries).Scan(&right)
	if err != nil {
		return false, fmt.Errorf("try an account number for representative %d: %w", who, err)
	}
	if !right {
		return false, nil
	}
	return true, ConfirmPhone(ctx, tx, who, ByRepresentative(who), now)
}

// Holding is what is known of who holds a representative's phone.
type Holding struct {
	Doubt       Doubt
	DoubtedAt   time.Time
	HeardAt     time.Time
	SIMKnown    bool
	ConfirmedAt time.Time
	ConfirmedBy string
}

// HoldingOf returns it, or [ErrNoRepresentative].
func HoldingOf(ctx context.Context, q pg.Querier, who RepresentativeID) (Holding, error) {
	var h Holding
	var doubted, heard, confirmed *time.Time
	err := q.QueryRow(ctx, `
		SELECT coalesce(doubt, ''), doubted_at, heard_at, sim IS NOT NULL, confirmed_at, confirmed_by
		  FROM access.representative WHERE id = $1 AND erased_at IS NULL`, who).
		Scan(&h.Doubt, &doubted, &heard, &h.SIMKnown, &confirmed, &h.ConfirmedBy)
	if errors.Is(err, pgx.ErrNoRows) {
		return Holding{}, ErrNoRepresentative
	}
	if err != nil {
		return Holding{}, fmt.Errorf("read who holds the phone of representative %d: %w", who, err)
	}
	h.DoubtedAt, h.HeardAt, h.ConfirmedAt = timeOf(doubted), timeOf(heard), timeOf(confirmed)
	return h, nil
}

// Doubted returns which of some phones may be in other hands than their owners'.
func Doubted(ctx context.Context, q pg.Querier, phones []string) ([]string, error) {
	rows, err := q.Query(ctx, `
		SELECT phone FROM access.representative WHERE phone = ANY ($1) AND doubt IS NOT NULL`, phones)
	if err != nil {
		return nil, fmt.Errorf("ask whose hands %d phones are in: %w", len(phones), err)
	}
	doubted, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("ask whose hands %d phones are in: %w", len(phones), err)
	}
	return doubted, nil
}
