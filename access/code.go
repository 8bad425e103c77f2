package access

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access/phone"
)

// Limits of one-time codes.
const (
	CodeLife    = 10 * time.Minute // from asking to typing
	codeTries   = 5                // wrong ones; of a million codes, 20 bits
	codesPerDay = 10               // to one phone, so that nobody is flooded with our SMS
	codesAtOnce = 3                // to one phone within CodeLife
)

// ErrTooManyCodes is a phone that was sent its share of codes; later it may ask again.
var ErrTooManyCodes = errors.New("too many codes were asked for this phone")

// Purpose is what a code is for. A code for one purpose is worth nothing for another.
type Purpose string

// The purposes.
const (
	SignIn   Purpose = "sign_in"
	oldPhone Purpose = "old_phone"
	newPhone Purpose = "new_phone"
)

// CodeVerdict says what became of a code that somebody typed.
type CodeVerdict string

// The verdicts: a closed list. Outside, all but [CodeRight] should look alike.
const (
	CodeRight     CodeVerdict = "right"
	CodeWrong     CodeVerdict = "wrong"
	CodeExpired   CodeVerdict = "expired"
	CodeUsed      CodeVerdict = "used"
	CodeExhausted CodeVerdict = "exhausted" // the five tries are spent
	CodeUnknown   CodeVerdict = "unknown"   // no such request
)

// RequestID names a request for a code; it is a random UUID.
type RequestID string

// NewCode makes a code of six digits for a phone and returns it, for the one SMS
// that carries it, with the name of the request. It does the same work for an
// unknown phone: whether anybody has it is for the caller to ask afterwards, and
// only to decide about the SMS. It returns [ErrTooManyCodes] for known and
// unknown phones alike.
func NewCode(ctx context.Context, tx pgx.Tx, purpose Purpose, number phone.Number, now time.Time) (
	RequestID, string, error,
) {
	// Two requests for one phone take turns, or both would count the same codes.
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock('access.code'::regclass::int, hashtext($1))`,
		number); err != nil {
		return "", "", fmt.Errorf("wait for other codes of the phone: %w", err)
	}
	var today, recent int
	err := tx.QueryRow(ctx, `
		SELECT count(*), count(*) FILTER (WHERE created_at > $3)
		  FROM access.code WHERE phone = $1 AND purpose = $4 AND created_at > $2`,
		number, now.Add(-24*time.Hour), now.Add(-CodeLife), purpose).Scan(&today, &recent)
	if err != nil {
		return "", "", fmt.Errorf("count the codes of a phone: %w", err)
	}
	if today >= codesPerDay || recent >= codesAtOnce {
		return "", "", ErrTooManyCodes
	}
	n, err := rand.Int(rand.Reader, big.NewInt(1_000_000))
	if err != nil {
		return "", "", fmt.Errorf("draw a code: %w", err)
	}
	code := fmt.Sprintf("%06d", n)
	salt := make([]byte, 16)
	if _, err := rand.Read(salt); err != nil {
		return "", "", fmt.Errorf("draw a salt: %w", err)
	}
	var request RequestID
	err = tx.QueryRow(ctx, `
		INSERT INTO access.code (id, purpose, phone, salt, hash, created_at, expires_at)
		VALUES (gen_random_uuid(), $1, $2, $3, $4, $5, $6) RETURNING id::text`,
		purpose, number, salt, hashCode(salt, code), now, now.Add(CodeLife)).Scan(&request)
	if err != nil {
		return "", "", fmt.Errorf("store a code: %w", err)
	}
	return request, code, nil
}

func hashCode(salt []byte, code string) []byte {
	sum := sha256.Sum256(append(append(make([]byte, 0, len(salt)+len(code)), salt...), code...))
	return sum[:]
}

// UseCode answers whether the code is the one that was sent for this request and
// spends it if it is; then the phone is proved. The caller commits whatever the
// verdict, because a wrong try is counted.
func UseCode(ctx context.Context, tx pgx.Tx, purpose Purpose, request RequestID, code string, now time.Time) (
	phone.Number, CodeVerdict, error,
) {
	number, verdict, err := tryCode(ctx, tx, purpose, request, code, now)
	if err != nil || verdict != CodeRight {
		return "", verdict, err
	}
	if err := spendCodes(ctx, tx, now, request); err != nil {
		return "", "", err
	}
	return number, CodeRight, nil
}

// tryCode counts a try and compares. The row stays locked until the end of the
// transaction, so a code is spent at most once.
func tryCode(ctx context.Context, tx pgx.Tx, purpose Purpose, request RequestID, code string, now time.Time) (
	phone.Number, CodeVerdict, error,
) {
	var number phone.Number
	var salt, hash []byte
	var tries int
	var expires time.Time
	var used *time.Time
	err := tx.QueryRow(ctx, `
		UPDATE access.code SET tries = least(tries + 1, 32000)
		 WHERE id::text = $1 AND id = CASE WHEN $1 ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN $1::uuid END
		   AND purpose = $2
		RETURNING phone, salt, hash, tries, expires_at, used_at`, request, purpose).
		Scan(&number, &salt, &hash, &tries, &expires, &used)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return "", CodeUnknown, nil
	case err != nil:
		return "", "", fmt.Errorf("count a try of a code: %w", err)
	case used != nil:
		return "", CodeUsed, nil
	case !now.Before(expires):
		return "", CodeExpired, nil
	case tries > codeTries:
		return "", CodeExhausted, nil
	case subtle.ConstantTimeCompare(hash, hashCode(salt, code)) != 1:
		return "", CodeWrong, nil
	default:
		return number, CodeRight, nil
	}
}

func spendCodes(ctx context.Context, tx pgx.Tx, now time.Time, requests ...RequestID) error {
	if _, err := tx.Exec(ctx, `UPDATE access.code SET used_at = $2 WHERE id = ANY ($1::text[]::uuid[])`,
		requests, now); err != nil {
		return fmt.Errorf("spend a code: %w", err)
	}
	return nil
}
