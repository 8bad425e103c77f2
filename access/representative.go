package access

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/text/unicode/norm"

	"zvonok/access/phone"
	"zvonok/ledger"
	"zvonok/ledger/pg"
)

// ErrNotAllowed is a wish that only a legal representative of the child may
// have (R1, D12). Outside it looks like a child that does not exist.
var ErrNotAllowed = errors.New("not a legal representative of this child")

// ErrNoRepresentative is a phone or an id that belongs to nobody.
var ErrNoRepresentative = errors.New("no such representative")

// ErrNoRight is a right that does not exist or has ended already.
var ErrNoRight = errors.New("no such right")

// Names are a person's names (ФИО).
type Names struct {
	Family     string `json:"family_name"`
	Given      string `json:"given_name"`
	Patronymic string `json:"patronymic,omitempty"`
}

// sameName compares names as people write them: without regard to case, to ё
// and е, to kinds of hyphens and to the spaces round and between the words.
func sameName(a, b string) bool { return foldName(a) == foldName(b) }

var nameFolder = strings.NewReplacer("ё", "е", "‐", "-", "‑", "-", "–", "-", "—", "-")

func foldName(name string) string {
	folded := nameFolder.Replace(strings.ToLower(norm.NFC.String(name)))
	return strings.Join(strings.Fields(folded), " ")
}

// Representative is a parent, a trusted person or a companion.
type Representative struct {
	ID       RepresentativeID
	Phone    phone.Number
	Email    string
	Names    Names
	Language string // "ru" or "en"
	Translit bool   // SMS in Latin letters (D15)
	// CabinetSince is when the owner of the phone first proved it by a code; zero: never.
	CabinetSince time.Time
}

const representativeColumns = `p.id, coalesce(p.phone, ''), p.email, p.family_name, p.given_name, p.patronymic,
	p.language, p.translit, p.cabinet_at`

func scanRepresentative(row pgx.CollectableRow) (Representative, error) {
	var r Representative
	var cabinet *time.Time
	err := row.Scan(&r.ID, &r.Phone, &r.Email, &r.Names.Family, &r.Names.Given, &r.Names.Patronymic,
		&r.Language, &r.Translit, &cabinet)
	r.CabinetSince = timeOf(cabinet)
	return r, err
}

const (
	selectRepresentative  = `SELECT ` + representativeColumns + ` FROM access.representative p WHERE `
	representativeByPhone = selectRepresentative + `p.phone = $1`
	representativeByID    = selectRepresentative + `p.id = $1 AND p.erased_at IS NULL`
)

func oneRepresentative(ctx context.Context, q pg.Querier, query string, key any) (Representative, error) {
	rows, err := q.Query(ctx, query, key)
	if err != nil {
		return Representative{}, fmt.Errorf("find a representative: %w", err)
	}
	return collectRepresentative(rows)
}

func collectRepresentative(rows pgx.Rows) (Representative, error) {
	r, err := pgx.CollectExactlyOneRow(rows, scanRepresentative)
	if errors.Is(err, pgx.ErrNoRows) {
		return Representative{}, ErrNoRepresentative
	}
	if err != nil {
		return Representative{}, fmt.Errorf("find a representative: %w", err)
	}
	return r, nil
}

// RepresentativeByPhone finds the owner of a phone, or returns [ErrNoRepresentative].
func RepresentativeByPhone(ctx context.Context, q pg.Querier, number phone.Number) (Representative, error) {
	return oneRepresentative(ctx, q, representativeByPhone, number)
}

// RepresentativeByID finds a representative, or returns [ErrNoRepresentative].
func RepresentativeByID(ctx context.Context, q pg.Querier, id RepresentativeID) (Representative, error) {
	return oneRepresentative(ctx, q, representativeByID, id)
}

// ConfirmedAt returns when the school, the registry or a parent last put it on
// record that a representative is who we think: the newest of the consents the
// person gave, of the relations the person was given, and of [ConfirmPhone]. It
// is asked when there is reason to think that the phone has another owner now.
func ConfirmedAt(ctx context.Context, q pg.Querier, id RepresentativeID) (time.Time, error) {
	var at *time.Time
	err := q.QueryRow(ctx, `
		SELECT greatest(
		       (SELECT max(greatest(g.created_at,
		                            (SELECT max(c.created_at) FROM access.consent c
		                              WHERE c.child_id = g.child_id AND c.representative_id = g.representative_id)))
		          FROM access.guardian g WHERE g.representative_id = $1),
		       (SELECT confirmed_at FROM access.representative WHERE id = $1))`, id).Scan(&at)
	if err != nil {
		return time.Time{}, fmt.Errorf("ask when representative %d was confirmed: %w", id, err)
	}
	return timeOf(at), nil
}

// OpenCabinet notes that the owner of a phone has proved it by a code, and
// returns who it is, or [ErrNoRepresentative]. The phone of the cabinet is the
// phone of the application by construction (R27): it is how the person is found.
func OpenCabinet(ctx context.Context, tx pgx.Tx, number phone.Number, now time.Time) (Representative, error) {
	if _, err := tx.Exec(ctx, `
		UPDATE access.representative SET cabinet_at = $2 WHERE phone = $1 AND cabinet_at IS NULL`,
		number, now); err != nil {
		return Representative{}, fmt.Errorf("open a cabinet: %w", err)
	}
	return RepresentativeByPhone(ctx, tx, number)
}

// Reading is how a representative reads what we write.
type Reading struct {
	Email    string // "" for none
	Language string // "ru" or "en"
	Translit bool   // SMS in Latin letters
}

// SetReading stores what a representative has chosen, from the next message on.
// Later imports leave it as it is.
func SetReading(ctx context.Context, tx pgx.Tx, id RepresentativeID, reading Reading, now time.Time) error {
	tag, err := tx.Exec(ctx, `
		UPDATE access.representative SET email = $2, language = $3, translit = $4, reading_at = $5
		 WHERE id = $1 AND erased_at IS NULL`, id, reading.Email, reading.Language, reading.Translit, now)
	if err != nil {
		return fmt.Errorf("store how representative %d reads: %w", id, err)
	}
	if tag.RowsAffected() == 0 {
		return ErrNoRepresentative
	}
	return nil
}

// SetLetters is [SetReading] that leaves the mailbox as it is.
func SetLetters(ctx context.Context, tx pgx.Tx, id RepresentativeID, language string, translit bool, now time.Time) error {
	tag, err := tx.Exec(ctx, `
		UPDATE access.representative SET language = $2, translit = $3, reading_at = $4
		 WHERE id = $1 AND erased_at IS NULL`, id, language, translit, now)
	if err != nil {
		return fmt.Errorf("store how representative %d reads: %w", id, err)
	}
	if tag.RowsAffected() == 0 {
		return ErrNoRepresentative
	}
	return nil
}

// Member is one person of a child's circle in one role.
type Member struct {
	Representative RepresentativeID
	Role           Role
	Names          Names
	Phone          phone.Number
	Since          time.Time
	Until          time.Time        // zero: open-ended
	RevokedAt      time.Time        // zero: not taken away
	GrantedBy      RepresentativeID // 0: the school or the registry
}

// Live reports whether the relation holds at that moment.
func (m Member) Live(at time.Time) bool {
	return !at.Before(m.Since) && (m.Until.IsZero() || at.Before(m.Until)) &&
		(m.RevokedAt.IsZero() || at.Before(m.RevokedAt))
}

// Circle returns everybody who stands or stood in a relation to the child: the
// list on the tab «Представители» (R61). The caller asks [May] first.
func Circle(ctx context.Context, q pg.Querier, child ledger.PersonID) ([]Member, error) {
	rows, err := q.Query(ctx, `
		SELECT g.representative_id, g.role, p.family_name, p.given_name, p.patronymic, coalesce(p.phone, ''),
		       g.since, g.until, g.revoked_at, coalesce(g.granted_by, 0)
		  FROM access.guardian g
		  JOIN access.representative p ON p.id = g.representative_id
		 WHERE g.child_id = $1
		 ORDER BY g.role, g.since, g.representative_id`, child)
	if err != nil {
		return nil, fmt.Errorf("read the circle of person %d: %w", child, err)
	}
	members, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Member, error) {
		var m Member
		var until, revoked *time.Time
		err := row.Scan(&m.Representative, &m.Role, &m.Names.Family, &m.Names.Given, &m.Names.Patronymic, &m.Phone,
			&m.Since, &until, &revoked, &m.GrantedBy)
		m.Until, m.RevokedAt = timeOf(until), timeOf(revoked)
		return m, err
	})
	if err != nil {
		return nil, fmt.Errorf("read the circle of person %d: %w", child, err)
	}
	return members, nil
}

// isLegal answers whether somebody is a legal representative of the child at
// that moment, with or without a live consent: who has withdrawn it may still
// exclude others.
func isLegal(ctx context.Context, q pg.Querier, who RepresentativeID, child ledger.PersonID, at time.Time) (
	bool, error,
) {
	var legal bool
	err := q.QueryRow(ctx, `
		SELECT EXISTS (SELECT FROM access.legal($3) WHERE child_id = $1 AND representative_id = $2)`,
		child, who, at).Scan(&legal)
	if err != nil {
		return false, fmt.Errorf("ask whether representative %d is legal for person %d: %w", who, child, err)
	}
	return legal, nil
}

// Exclude takes a trusted person's or a companion's right away, at once (R58,
// D12). A legal representative of the child may do it, and the person may give
// up the own right; for anybody else, and for a legal representative's right, it
// is [ErrNotAllowed]. [ErrNoRight] means that there is nothing to take away.
func Exclude(ctx context.Context, tx pgx.Tx, by RepresentativeID, child ledger.PersonID, whom RepresentativeID,
	role Role, now time.Time,
) error {
	if role != Trusted && role != Companion {
		return ErrNotAllowed
	}
	if by != whom {
		legal, err := isLegal(ctx, tx, by, child, now)
		if err != nil {
			return err
		}
		if !legal {
			return ErrNotAllowed
		}
	}
	return Revoke(ctx, tx, child, whom, role, ByRepresentative(by), now)
}

// Revoke takes any right away, at once, on the school's word: of a legal
// representative, when a court has decided so. It returns [ErrNoRight] when there
// is nothing to take away.
func Revoke(ctx context.Context, tx pgx.Tx, child ledger.PersonID, whom RepresentativeID, role Role,
	by Actor, now time.Time,
) error {
	tag, err := tx.Exec(ctx, `
		WITH revoked AS (
		    UPDATE access.guardian SET revoked_at = $4
		     WHERE child_id = $1 AND representative_id = $2 AND role = $3 AND revoked_at IS NULL
		       AND (until IS NULL OR until > $4)
		    RETURNING child_id, representative_id, role, since, until
		)
		INSERT INTO access.guardian_event (child_id, representative_id, role, what, since, until, at, actor_kind, actor_id)
		SELECT child_id, representative_id, role, 'revoked', since, until, $4, $5, $6 FROM revoked`,
		child, whom, role, now, by.Kind, by.ID)
	if err != nil {
		return fmt.Errorf("revoke the %s right of representative %d to person %d: %w", role, whom, child, err)
	}
	if tag.RowsAffected() == 0 {
		return ErrNoRight
	}
	return nil
}
