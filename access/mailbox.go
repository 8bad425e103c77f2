package access

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger/pg"
)

// ErrMailbox is a text that is not a mailbox.
var ErrMailbox = errors.New("not a mailbox like name@example.org")

// MailboxChange is a new mailbox that waits for its code. The caller sends the
// code there and shows it nowhere else.
type MailboxChange struct {
	ID    RequestID
	Email string
	Code  string
}

// StartMailboxChange begins a change of the mailbox: nobody's letters go to a
// mailbox that has not answered. Requests are counted for the person, so that
// strangers' mailboxes are not flooded. It returns [ErrMailbox],
// [ErrNoRepresentative] and [ErrTooManyCodes].
func StartMailboxChange(ctx context.Context, tx pgx.Tx, who RepresentativeID, email string, now time.Time) (
	MailboxChange, error,
) {
	if !isMailbox(email) {
		return MailboxChange{}, ErrMailbox
	}
	representative, err := RepresentativeByID(ctx, tx, who)
	if err != nil {
		return MailboxChange{}, err
	}
	request, code, err := NewCode(ctx, tx, mailbox, representative.Phone, now)
	if err != nil {
		return MailboxChange{}, err
	}
	change := MailboxChange{Email: email, Code: code}
	err = tx.QueryRow(ctx, `
		INSERT INTO access.mailbox_change (id, representative_id, email, code, started_at)
		VALUES (gen_random_uuid(), $1, $2, $3::text::uuid, $4) RETURNING id::text`, who, email, request, now).
		Scan(&change.ID)
	if err != nil {
		return MailboxChange{}, fmt.Errorf("store a change of mailbox: %w", err)
	}
	return change, nil
}

// FinishMailboxChange makes the change when the code is right; later imports
// leave it. The caller commits whatever the verdict, because a wrong try is counted.
func FinishMailboxChange(ctx context.Context, tx pgx.Tx, who RepresentativeID, id RequestID, code string, now time.Time) (
	CodeVerdict, error,
) {
	var request RequestID
	var email string
	err := tx.QueryRow(ctx, `
		SELECT code::text, email FROM access.mailbox_change WHERE id::text = $1 AND representative_id = $2 FOR UPDATE`,
		id, who).Scan(&request, &email)
	if errors.Is(err, pgx.ErrNoRows) {
		return CodeUnknown, nil
	}
	if err != nil {
		return "", fmt.Errorf("read a change of mailbox: %w", err)
	}
	if _, verdict, err := UseCode(ctx, tx, mailbox, request, code, now); err != nil || verdict != CodeRight {
		return verdict, err
	}
	return CodeRight, setMailbox(ctx, tx, who, email, now)
}

// DropMailbox forgets a representative's mailbox: no letters any more.
func DropMailbox(ctx context.Context, tx pgx.Tx, who RepresentativeID, now time.Time) error {
	return setMailbox(ctx, tx, who, "", now)
}

func setMailbox(ctx context.Context, tx pgx.Tx, who RepresentativeID, email string, now time.Time) error {
	if _, err := tx.Exec(ctx, `
		UPDATE access.representative SET email = $2, reading_at = $3 WHERE id = $1 AND erased_at IS NULL`,
		who, email, now); err != nil {
		return fmt.Errorf("store the mailbox of representative %d: %w", who, err)
	}
	return nil
}

// MailboxPending returns the mailbox whose code representative who may still
// type, or "".
func MailboxPending(ctx context.Context, q pg.Querier, who RepresentativeID, now time.Time) (string, error) {
	var email string
	err := q.QueryRow(ctx, `
		SELECT m.email FROM access.mailbox_change m JOIN access.code c ON c.id = m.code
		 WHERE m.representative_id = $1 AND c.used_at IS NULL AND c.expires_at > $2
		 ORDER BY m.started_at DESC LIMIT 1`, who, now).Scan(&email)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return "", fmt.Errorf("look for a change of mailbox: %w", err)
	}
	return email, nil
}
