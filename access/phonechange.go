package access

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access/phone"
)

// ErrPhoneTaken is a change to the phone of another representative. It is told
// only to somebody who has proved to hold that phone too.
var ErrPhoneTaken = errors.New("the phone belongs to another representative")

// ErrSamePhone is a change to the phone one has.
var ErrSamePhone = errors.New("this is the phone you have")

// PhoneChange is a change of phone that waits for its two codes. The caller
// sends each code to its phone and shows neither.
type PhoneChange struct {
	ID       RequestID
	OldPhone phone.Number
	OldCode  string
	NewPhone phone.Number
	NewCode  string
}

// StartPhoneChange begins a change of the mobile number (R28): a code goes to
// the old and another to the new phone. It tells nothing about whether the new
// phone is somebody's. It returns [ErrNoRepresentative], [ErrSamePhone] and
// [ErrTooManyCodes].
func StartPhoneChange(ctx context.Context, tx pgx.Tx, who RepresentativeID, to phone.Number, now time.Time) (
	PhoneChange, error,
) {
	representative, err := RepresentativeByID(ctx, tx, who)
	if err != nil {
		return PhoneChange{}, err
	}
	if representative.Phone == to {
		return PhoneChange{}, ErrSamePhone
	}
	change := PhoneChange{OldPhone: representative.Phone, NewPhone: to}
	oldRequest, oldCode, err := NewCode(ctx, tx, oldPhone, change.OldPhone, now)
	if err != nil {
		return PhoneChange{}, err
	}
	newRequest, newCode, err := NewCode(ctx, tx, newPhone, change.NewPhone, now)
	if err != nil {
		return PhoneChange{}, err
	}
	change.OldCode, change.NewCode = oldCode, newCode
	err = tx.QueryRow(ctx, `
		INSERT INTO access.phone_change (id, representative_id, old_phone, new_phone, old_code, new_code, started_at)
		VALUES (gen_random_uuid(), $1, $2, $3, $4::text::uuid, $5::text::uuid, $6) RETURNING id::text`,
		who, change.OldPhone, change.NewPhone, oldRequest, newRequest, now).Scan(&change.ID)
	if err != nil {
		return PhoneChange{}, fmt.Errorf("store a change of phone: %w", err)
	}
	return change, nil
}

// FinishPhoneChange makes the change when both codes are right; rights, wishes
// and history stay with the person, and every session of both phones ends. The
// caller commits whatever the verdict, because wrong tries are counted, and also
// on [ErrPhoneTaken].
func FinishPhoneChange(ctx context.Context, tx pgx.Tx, who RepresentativeID, id RequestID, oldCode, newCode string,
	now time.Time,
) (CodeVerdict, error) {
	var oldRequest, newRequest RequestID
	var oldNumber, newNumber phone.Number
	err := tx.QueryRow(ctx, `
		SELECT old_code::text, new_code::text, old_phone, new_phone FROM access.phone_change
		 WHERE id::text = $1 AND representative_id = $2 FOR UPDATE`, id, who).
		Scan(&oldRequest, &newRequest, &oldNumber, &newNumber)
	if errors.Is(err, pgx.ErrNoRows) {
		return CodeUnknown, nil
	}
	if err != nil {
		return "", fmt.Errorf("read a change of phone: %w", err)
	}
	// Both are tried before either is judged: a wrong one must not tell which.
	_, first, err := tryCode(ctx, tx, oldPhone, oldRequest, oldCode, now)
	if err != nil {
		return "", err
	}
	_, second, err := tryCode(ctx, tx, newPhone, newRequest, newCode, now)
	if err != nil {
		return "", err
	}
	if first != CodeRight {
		return first, nil
	}
	if second != CodeRight {
		return second, nil
	}
	if err := spendCodes(ctx, tx, now, oldRequest, newRequest); err != nil {
		return "", err
	}
	// In the order of phones, so that two people who swap phones do not wait for each other.
	if _, err := tx.Exec(ctx, `
		SELECT pg_advisory_xact_lock('access.representative'::regclass::int, hashtext(p))
		  FROM (SELECT p FROM unnest($1::text[]) p ORDER BY hashtext(p)) o`,
		[]phone.Number{oldNumber, newNumber}); err != nil {
		return "", fmt.Errorf("wait for other changes of phone: %w", err)
	}
	tag, err := tx.Exec(ctx, `
		WITH changed AS (
		    UPDATE access.representative
		       SET phone = $3, sim = NULL, heard_at = $5, doubt = NULL, doubted_at = NULL, doubt_tries = 0
		     WHERE id = $1 AND phone = $2
		       AND NOT EXISTS (SELECT FROM access.representative WHERE phone = $3)
		    RETURNING id
		)
		UPDATE access.phone_change c SET done_at = $5 FROM changed WHERE c.id = $4::text::uuid`,
		who, oldNumber, newNumber, id, now)
	if err != nil {
		return "", fmt.Errorf("change the phone of representative %d: %w", who, err)
	}
	if tag.RowsAffected() == 0 {
		return "", ErrPhoneTaken
	}
	for _, number := range []phone.Number{oldNumber, newNumber} {
		if err := EndSessions(ctx, tx, number); err != nil {
			return "", err
		}
	}
	return CodeRight, nil
}
