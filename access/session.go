package access

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access/phone"
	"zvonok/ledger/pg"
)

// Limits of sessions.
const (
	SessionLife = 90 * 24 * time.Hour // from the code to the next one at the latest
	SessionIdle = 14 * 24 * time.Hour // without a request

	sessionSeen   = 5 * time.Minute // how old seen_at may be: a request is not a write
	sessionsOfOne = 20              // of one phone; the oldest ends for one more
)

// ErrNoSession is a token of nobody, or of a session that has ended.
var ErrNoSession = errors.New("no such session")

// Token is the secret of a session: 256 random bits. It is shown once, when the
// session is opened, and never prints itself.
type Token string

// String keeps tokens out of logs and messages.
func (Token) String() string { return "[token]" }

// Reveal returns the secret itself.
func (t Token) Reveal() string { return string(t) }

func hashToken(token string) []byte {
	sum := sha256.Sum256([]byte(token))
	return sum[:]
}

// Session is somebody who has proved to hold a phone.
type Session struct {
	Phone phone.Number
	// Representative is whose phone it is at the moment of the question; its ID
	// is 0 for somebody who is invited and has not accepted yet, and for somebody
	// whose phone may be in other hands ([Hear]).
	Representative Representative
	ExpiresAt      time.Time
}

// Expected answers whether somebody of this phone has something to see here: a
// representative, or who is invited. Only then a code is worth an SMS.
func Expected(ctx context.Context, q pg.Querier, number phone.Number, now time.Time) (bool, error) {
	var expected bool
	err := q.QueryRow(ctx, `
		SELECT EXISTS (SELECT FROM access.representative WHERE phone = $1)
		    OR EXISTS (SELECT FROM access.invitation WHERE phone = $1 AND state = 'pending' AND expires_at > $2)`,
		number, now).Scan(&expected)
	if err != nil {
		return false, fmt.Errorf("ask whether a phone is expected: %w", err)
	}
	return expected, nil
}

// OpenSession opens a session when the code is the one that was sent for the request
// (D3, R27): it spends the code, opens the cabinet of the phone's owner and
// returns the token. The caller commits whatever the verdict, because a wrong
// try is counted. A new session has a new token always.
func OpenSession(ctx context.Context, tx pgx.Tx, request RequestID, code string, now time.Time) (
	Token, Session, CodeVerdict, error,
) {
	number, verdict, err := UseCode(ctx, tx, SignIn, request, code, now)
	if err != nil || verdict != CodeRight {
		return "", Session{}, verdict, err
	}
	session := Session{Phone: number, ExpiresAt: now.Add(SessionLife)}
	session.Representative, err = OpenCabinet(ctx, tx, number, now)
	if err != nil && !errors.Is(err, ErrNoRepresentative) {
		return "", Session{}, "", err
	}
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		return "", Session{}, "", fmt.Errorf("draw a token: %w", err)
	}
	token := Token(base64.RawURLEncoding.EncodeToString(secret))
	batch := &pgx.Batch{}
	batch.Queue(`
		DELETE FROM access.session
		 WHERE phone = $1 AND (expires_at <= $2 OR seen_at <= $3
		    OR token_hash IN (SELECT token_hash FROM access.session WHERE phone = $1
		                       ORDER BY created_at DESC, token_hash OFFSET $4))`,
		number, now, now.Add(-SessionIdle), sessionsOfOne-1)
	batch.Queue(`
		INSERT INTO access.session (token_hash, phone, created_at, seen_at, expires_at) VALUES ($1, $2, $3, $3, $4)`,
		hashToken(token.Reveal()), number, now, session.ExpiresAt)
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return "", Session{}, "", fmt.Errorf("open a session: %w", err)
	}
	return token, session, CodeRight, nil
}

const sessionOf = `
	SELECT s.phone, s.expires_at, s.seen_at, coalesce(p.id, 0), coalesce(p.email, ''), coalesce(p.family_name, ''),
	       coalesce(p.given_name, ''), coalesce(p.patronymic, ''), coalesce(p.language, 'ru'),
	       coalesce(p.translit, false), p.cabinet_at
	  FROM access.session s
	  LEFT JOIN access.representative p ON p.phone = s.phone AND p.doubt IS NULL
	 WHERE s.token_hash = $1 AND s.expires_at > $2 AND s.seen_at > $3`

// SessionOf finds the session of a token, or returns [ErrNoSession]. Once in some
// minutes it notes that the session is in use.
func SessionOf(ctx context.Context, q pg.Querier, token string, now time.Time) (Session, error) {
	var s Session
	var seen time.Time
	var cabinet *time.Time
	r := &s.Representative
	err := q.QueryRow(ctx, sessionOf, hashToken(token), now, now.Add(-SessionIdle)).
		Scan(&s.Phone, &s.ExpiresAt, &seen, &r.ID, &r.Email, &r.Names.Family, &r.Names.Given, &r.Names.Patronymic,
			&r.Language, &r.Translit, &cabinet)
	if errors.Is(err, pgx.ErrNoRows) {
		return Session{}, ErrNoSession
	}
	if err != nil {
		return Session{}, fmt.Errorf("find a session: %w", err)
	}
	r.Phone, r.CabinetSince = s.Phone, timeOf(cabinet)
	if now.Sub(seen) < sessionSeen {
		return s, nil
	}
	if _, err := q.Exec(ctx, `UPDATE access.session SET seen_at = $2 WHERE token_hash = $1`,
		hashToken(token), now); err != nil {
		return Session{}, fmt.Errorf("note that a session is in use: %w", err)
	}
	return s, nil
}

// EndSession ends the session of a token; one that has ended is no error.
func EndSession(ctx context.Context, q pg.Querier, token string) error {
	if _, err := q.Exec(ctx, `DELETE FROM access.session WHERE token_hash = $1`, hashToken(token)); err != nil {
		return fmt.Errorf("end a session: %w", err)
	}
	return nil
}

// EndSessions ends every session of a phone.
func EndSessions(ctx context.Context, q pg.Querier, number phone.Number) error {
	if _, err := q.Exec(ctx, `DELETE FROM access.session WHERE phone = $1`, number); err != nil {
		return fmt.Errorf("end the sessions of a phone: %w", err)
	}
	return nil
}
