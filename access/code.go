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
	mailbox  Purpose = "mailbox"
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

// AskCode notes that a code is wanted for a phone and names the request; the
// code is drawn by [DrawCode] when it is about to be sent. The work and the
// answer are the same whether or not the phone is anybody's: it returns
// [ErrTooManyCodes] for known and unknown phones alike.
func AskCode(ctx context.Context, tx pgx.Tx, purpose Purpose, number phone.Number, now time.Time) (RequestID, error) {
	// Two requests for one phone take turns, or both would count the same codes.
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock('access.code'::regclass::int, hashtext($1))`,
		number); err != nil {
		return "", fmt.Errorf("wait for other codes of the phone: %w", err)
	}
	var today, recent int
	err := tx.QueryRow(ctx, `
		SELECT count(*), count(*) FILTER (WHERE created_at > $3)
		  FROM access.code WHERE phone = $1 AND purpose = $4 AND created_at > $2`,
		number, now.Add(-24*time.Hour), now.Add(-CodeLife), purpose).Scan(&today, &recent)
	if err != nil {
		return "", fmt.Errorf("count the codes of a phone: %w", err)
	}
	if today >= codesPerDay || recent >= codesAtOnce {
		return "", ErrTooManyCodes
	}
	var request RequestID
	err = tx.QueryRow(ctx, `
		INSERT INTO access.code (id, purpose, phone, created_at, expires_at)
		VALUES (gen_random_uuid(), $1, $2, $3, $4) RETURNING id::text`,
		purpose, number, now, now.Add(CodeLife)).Scan(&request)
	if err != nil {
		return "", fmt.Errorf("store a request for a code: %w", err)
	}
	return request, nil
}

// DrawCode draws the six digits of a request, for the one message that carries
// them, and stores their hash. A request has one code for ever: drawn is false
// when it has been drawn already, and when the request has expired or is unknown.
func DrawCode(ctx context.Context, tx pgx.Tx, request RequestID, now time.Time) (
	number phone.Number, code string, drawn bool, err error,
) {
	n, err := rand.Int(rand.Reader, big.NewInt(1_000_000))
	if err != nil {
		return "", "", false, fmt.Errorf("draw a code: %w", err)
	}
	code = fmt.Sprintf("%06d", n)
	salt := make([]byte, 16)
	if _, err := rand.Read(salt); err != nil {
		return "", "", false, fmt.Errorf("draw a salt: %w", err)
	}
	err = tx.QueryRow(ctx, `
		UPDATE access.code SET salt = $2, hash = $3
		 WHERE id = $1::text::uuid AND hash IS NULL AND expires_at > $4 RETURNING phone`,
		request, salt, hashCode(salt, code), now).Scan(&number)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", "", false, nil
	}
	if err != nil {
		return "", "", false, fmt.Errorf("store a code: %w", err)
	}
	return number, code, true, nil
}

// NewCode is [AskCode] and [DrawCode] in one, for codes that are sent whoever
// has the phone.
func NewCode(ctx context.Context, tx pgx.Tx, purpose Purpose, number phone.Number, now time.Time) (
	RequestID, string, error,
) {
	request, err := AskCode(ctx, tx, purpose, number, now)
	if err != nil {
		return "", "", err
	}
	_, code, _, err := DrawCode(ctx, tx, request, now)
	if err != nil {
		return "", "", err
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
	case hash == nil, subtle.ConstantTimeCompare(hash, hashCode(salt, code)) != 1:
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
