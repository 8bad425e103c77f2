package access

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access/phone"
	"zvonok/ledger"
	"zvonok/ledger/pg"
)

// Limits of invitations (D12).
const (
	InvitationLife    = 7 * 24 * time.Hour
	invitationsPerDay = 10 // of one parent, within 24 hours
	invitationTries   = 5  // names that do not match
	maxInvited        = 20 // children of one invitation; more than any family has
)

// The refusals of [Invite]. None of them depends on who has the phone.
var (
	ErrTooManyInvitations = errors.New("ten invitations in a day are enough")
	ErrInviteSelf         = errors.New("nobody invites himself")
	ErrNoName             = errors.New("an invitation needs the surname of the invited person")
)

// InvitationID names an invitation.
type InvitationID int64

// Invitation is what the inviting parent sees of it (R60, R61): what he has
// typed, and never whether anybody has that phone.
type Invitation struct {
	ID         InvitationID
	Inviter    RepresentativeID
	Phone      phone.Number
	FamilyName string
	GivenName  string // "" when the parent left it out
	Children   []ledger.PersonID
	Until      time.Time // the last moment of the right to be granted; zero: open-ended
	State      string    // pending, accepted, declined, cancelled, refused
	CreatedAt  time.Time
	ExpiresAt  time.Time
	// Repeated tells of an answer of [Invite] that the invitation had been made before.
	Repeated bool
}

// Proposal is a wish to give somebody access to children (R59).
type Proposal struct {
	Inviter    RepresentativeID
	Children   []ledger.PersonID
	Phone      phone.Number
	FamilyName string
	GivenName  string    // optional
	Until      time.Time // optional
}

// Invite invites a trusted person by phone and surname (R58 to R60, D12). The
// inviter must be a legal representative who may know of each of the children
// ([ErrNotAllowed]); a trusted person cannot delegate. The answer and the work
// are the same whether or not the phone is anybody's. The same invitation made
// twice is one.
func Invite(ctx context.Context, tx pgx.Tx, p Proposal, now time.Time) (Invitation, error) {
	if err := p.check(now); err != nil {
		return Invitation{}, err
	}
	// The row is locked, so that a parent's invitations are counted one after the other.
	var own phone.Number
	err := tx.QueryRow(ctx, `SELECT coalesce(phone, '') FROM access.representative WHERE id = $1 FOR UPDATE`,
		p.Inviter).Scan(&own)
	if errors.Is(err, pgx.ErrNoRows) {
		return Invitation{}, ErrNotAllowed
	}
	if err != nil {
		return Invitation{}, fmt.Errorf("read representative %d: %w", p.Inviter, err)
	}
	if err := p.allowed(ctx, tx, own, now); err != nil {
		return Invitation{}, err
	}
	pending, err := Invitations(ctx, tx, p.Inviter, now)
	if err != nil {
		return Invitation{}, err
	}
	for _, i := range pending {
		if i.State == "pending" && now.Before(i.ExpiresAt) && i.Phone == p.Phone && i.Until.Equal(p.Until) &&
			sameName(i.FamilyName, p.FamilyName) && sameName(i.GivenName, p.GivenName) &&
			slices.Equal(i.Children, p.Children) {
			i.Repeated = true
			return i, nil
		}
	}
	var today int
	if err := tx.QueryRow(ctx, `SELECT count(*) FROM access.invitation WHERE inviter_id = $1 AND created_at > $2`,
		p.Inviter, now.Add(-24*time.Hour)).Scan(&today); err != nil {
		return Invitation{}, fmt.Errorf("count the invitations of representative %d: %w", p.Inviter, err)
	}
	if today >= invitationsPerDay {
		return Invitation{}, ErrTooManyInvitations
	}
	invitation := Invitation{
		Inviter: p.Inviter, Phone: p.Phone, FamilyName: p.FamilyName, GivenName: p.GivenName, Children: p.Children,
		Until: p.Until, State: "pending", CreatedAt: now, ExpiresAt: now.Add(InvitationLife),
	}
	err = tx.QueryRow(ctx, `
		WITH made AS (
		    INSERT INTO access.invitation (inviter_id, phone, family_name, given_name, until, state, created_at, expires_at)
		    VALUES ($1, $2, $3, $4, $5, 'pending', $6, $7) RETURNING id
		), children AS (
		    INSERT INTO access.invitation_child (invitation_id, child_id) SELECT id, unnest($8::bigint[]) FROM made
		)
		SELECT id FROM made`,
		p.Inviter, p.Phone, p.FamilyName, p.GivenName, moment(p.Until), now, invitation.ExpiresAt, p.Children).
		Scan(&invitation.ID)
	if err != nil {
		return Invitation{}, fmt.Errorf("store an invitation: %w", err)
	}
	return invitation, nil
}

// CheckProposal is [Invite] without inviting, for the screen on which a parent
// checks what is about to be sent (R60): the proposal as it would be stored, or
// the refusal. Only the count of the day is left to Invite.
func CheckProposal(ctx context.Context, q pg.Querier, p Proposal, now time.Time) (Proposal, error) {
	if err := p.check(now); err != nil {
		return Proposal{}, err
	}
	inviter, err := RepresentativeByID(ctx, q, p.Inviter)
	if errors.Is(err, ErrNoRepresentative) {
		return Proposal{}, ErrNotAllowed
	}
	if err != nil {
		return Proposal{}, err
	}
	return p, p.allowed(ctx, q, inviter.Phone, now)
}

// check tidies the proposal and finds what is wrong with it by itself.
func (p *Proposal) check(now time.Time) error {
	p.FamilyName, p.GivenName = strings.TrimSpace(p.FamilyName), strings.TrimSpace(p.GivenName)
	p.Children = slices.Compact(slices.Sorted(slices.Values(p.Children)))
	if p.FamilyName == "" || !isName(p.FamilyName) || !isName(p.GivenName) {
		return ErrNoName
	}
	if len(p.Children) == 0 || len(p.Children) > maxInvited || !p.Until.IsZero() && !p.Until.After(now) {
		return ErrNotAllowed
	}
	return nil
}

// allowed answers whether the inviter may share all of the children, with
// somebody who is not himself.
func (p *Proposal) allowed(ctx context.Context, q pg.Querier, own phone.Number, now time.Time) error {
	allowed, err := delegable(ctx, q, p.Inviter, p.Children, now)
	if err != nil {
		return err
	}
	if len(allowed) != len(p.Children) {
		return ErrNotAllowed
	}
	if own == p.Phone {
		return ErrInviteSelf
	}
	return nil
}

// delegable returns those of the children to whom the representative may let
// others in: he is legal for them and may know of them.
func delegable(ctx context.Context, q pg.Querier, who RepresentativeID, children []ledger.PersonID, at time.Time) (
	[]ledger.PersonID, error,
) {
	rows, err := q.Query(ctx, `
		SELECT child_id FROM access.rights($3)
		 WHERE representative_id = $1 AND child_id = ANY ($2) AND role = 'legal' AND verdict = 'yes'
		 ORDER BY child_id`, who, children, at)
	if err != nil {
		return nil, fmt.Errorf("ask which children representative %d may share: %w", who, err)
	}
	allowed, err := pgx.CollectRows(rows, pgx.RowTo[ledger.PersonID])
	if err != nil {
		return nil, fmt.Errorf("ask which children representative %d may share: %w", who, err)
	}
	return allowed, nil
}

// Invitations returns the invitations a parent has made in the last 30 days, newest first.
func Invitations(ctx context.Context, q pg.Querier, inviter RepresentativeID, now time.Time) ([]Invitation, error) {
	rows, err := q.Query(ctx, `
		SELECT i.id, i.inviter_id, i.phone, i.family_name, i.given_name, i.until, i.state, i.created_at, i.expires_at,
		       ARRAY(SELECT c.child_id FROM access.invitation_child c WHERE c.invitation_id = i.id ORDER BY 1)
		  FROM access.invitation i
		 WHERE i.inviter_id = $1 AND i.created_at > $2
		 ORDER BY i.created_at DESC, i.id DESC`, inviter, now.AddDate(0, 0, -30))
	if err != nil {
		return nil, fmt.Errorf("read the invitations of representative %d: %w", inviter, err)
	}
	invitations, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Invitation, error) {
		var i Invitation
		var until *time.Time
		err := row.Scan(&i.ID, &i.Inviter, &i.Phone, &i.FamilyName, &i.GivenName, &until, &i.State, &i.CreatedAt,
			&i.ExpiresAt, &i.Children)
		i.Until = timeOf(until)
		return i, err
	})
	if err != nil {
		return nil, fmt.Errorf("read the invitations of representative %d: %w", inviter, err)
	}
	return invitations, nil
}

// Invited is what the owner of a phone sees of an invitation before accepting
// it: who invites, and no child's name, since the parent may have mistyped the
// number (R62).
type Invited struct {
	ID            InvitationID
	InviterFamily string
	InviterGiven  string
	Children      int // how many
	ExpiresAt     time.Time
}

// InvitationsTo returns the invitations that wait for the owner of a phone, who
// has proved it by a code.
func InvitationsTo(ctx context.Context, q pg.Querier, number phone.Number, now time.Time) ([]Invited, error) {
	rows, err := q.Query(ctx, `
		SELECT i.id, r.family_name, r.given_name,
		       (SELECT count(*) FROM access.invitation_child c WHERE c.invitation_id = i.id), i.expires_at
		  FROM access.invitation i
		  JOIN access.representative r ON r.id = i.inviter_id
		 WHERE i.phone = $1 AND i.state = 'pending' AND i.expires_at > $2
		 ORDER BY i.created_at, i.id`, number, now)
	if err != nil {
		return nil, fmt.Errorf("read the invitations to a phone: %w", err)
	}
	invited, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Invited])
	if err != nil {
		return nil, fmt.Errorf("read the invitations to a phone: %w", err)
	}
	return invited, nil
}

// Outcome is what became of an acceptance.
type Outcome string

// The outcomes: a closed list.
const (
	Accepted    Outcome = "accepted"
	NamesDiffer Outcome = "names_differ" // the names do not match; it may be tried again, five times
	NotInvited  Outcome = "not_invited"  // no such invitation waits for this phone: unknown, answered, expired
	Lapsed      Outcome = "lapsed"       // the inviter may no longer share any of the children
)

// Acceptance is the answer to [Accept].
type Acceptance struct {
	Outcome        Outcome
	Representative RepresentativeID  // who accepted, when accepted
	Children       []ledger.PersonID // to whom access was granted
	New            bool              // the person was not known before
}

// Accept accepts an invitation for the owner of a phone, who has proved it by a
// code and gives his names. Both sides' names must match (D12): the surname, and
// the given name if the parent wrote one, and both names of the person who is
// known by this phone already. The proxy is verified (R63): access is granted to
// those of the children whom the inviter may still share, and works at once.
//
// The caller commits whatever the outcome, because names that differ are counted.
func Accept(ctx context.Context, tx pgx.Tx, id InvitationID, number phone.Number, names Names, now time.Time) (
	Acceptance, error,
) {
	var inviter RepresentativeID
	var family, given string
	var until *time.Time
	err := tx.QueryRow(ctx, `
		SELECT inviter_id, family_name, given_name, until FROM access.invitation
		 WHERE id = $1 AND phone = $2 AND state = 'pending' AND expires_at > $3 FOR UPDATE`, id, number, now).
		Scan(&inviter, &family, &given, &until)
	if errors.Is(err, pgx.ErrNoRows) {
		return Acceptance{Outcome: NotInvited}, nil
	}
	if err != nil {
		return Acceptance{}, fmt.Errorf("read invitation %d: %w", id, err)
	}
	known, err := RepresentativeByPhone(ctx, tx, number)
	isNew := errors.Is(err, ErrNoRepresentative)
	if err != nil && !isNew {
		return Acceptance{}, err
	}
	names.Family, names.Given = strings.TrimSpace(names.Family), strings.TrimSpace(names.Given)
	match := names.Family != "" && names.Given != "" &&
		isName(names.Family) && isName(names.Given) && isName(names.Patronymic) &&
		sameName(names.Family, family) && (given == "" || sameName(names.Given, given)) &&
		(isNew || sameName(names.Family, known.Names.Family) && sameName(names.Given, known.Names.Given))
	if !match {
		if _, err := tx.Exec(ctx, `
			UPDATE access.invitation
			   SET tries = tries + 1, state = CASE WHEN tries + 1 >= $2 THEN 'refused' ELSE state END,
			       decided_at = CASE WHEN tries + 1 >= $2 THEN $3::timestamptz END
			 WHERE id = $1`, id, invitationTries, now); err != nil {
			return Acceptance{}, fmt.Errorf("count a name of invitation %d: %w", id, err)
		}
		return Acceptance{Outcome: NamesDiffer}, nil
	}
	var invited []ledger.PersonID
	if err := tx.QueryRow(ctx, `
		SELECT ARRAY(SELECT child_id FROM access.invitation_child WHERE invitation_id = $1)`, id).
		Scan(&invited); err != nil {
		return Acceptance{}, fmt.Errorf("read the children of invitation %d: %w", id, err)
	}
	children, err := delegable(ctx, tx, inviter, invited, now)
	if err != nil {
		return Acceptance{}, err
	}
	if len(children) == 0 || until != nil && !until.After(now) {
		return Acceptance{Outcome: Lapsed}, decide(ctx, tx, id, "refused", 0, now)
	}
	if isNew {
		if known.ID, err = addRepresentative(ctx, tx, person{Names: names, phone: number}); err != nil {
			return Acceptance{}, err
		}
	}
	if err := grant(ctx, tx, grantOf{
		children: children, to: known.ID, role: Trusted, until: timeOf(until), grantedBy: inviter,
		by: ByRepresentative(inviter), at: now,
	}); err != nil {
		return Acceptance{}, err
	}
	if err := decide(ctx, tx, id, "accepted", known.ID, now); err != nil {
		return Acceptance{}, err
	}
	return Acceptance{Outcome: Accepted, Representative: known.ID, Children: children, New: isNew}, nil
}

// Decline refuses an invitation for the owner of the phone. One that does not
// wait for this phone is no error: nothing is left to refuse.
func Decline(ctx context.Context, tx pgx.Tx, id InvitationID, number phone.Number, now time.Time) error {
	_, err := tx.Exec(ctx, `
		UPDATE access.invitation SET state = 'declined', decided_at = $3
		 WHERE id = $1 AND phone = $2 AND state = 'pending'`, id, number, now)
	if err != nil {
		return fmt.Errorf("decline invitation %d: %w", id, err)
	}
	return nil
}

// Cancel takes an own invitation back before it is accepted.
func Cancel(ctx context.Context, tx pgx.Tx, id InvitationID, inviter RepresentativeID, now time.Time) error {
	_, err := tx.Exec(ctx, `
		UPDATE access.invitation SET state = 'cancelled', decided_at = $3
		 WHERE id = $1 AND inviter_id = $2 AND state = 'pending'`, id, inviter, now)
	if err != nil {
		return fmt.Errorf("cancel invitation %d: %w", id, err)
	}
	return nil
}

func decide(ctx context.Context, tx pgx.Tx, id InvitationID, state string, who RepresentativeID, now time.Time) error {
	_, err := tx.Exec(ctx, `
		UPDATE access.invitation SET state = $2, representative_id = nullif($3::bigint, 0), decided_at = $4 WHERE id = $1`,
		id, state, who, now)
	if err != nil {
		return fmt.Errorf("write invitation %d as %s: %w", id, state, err)
	}
	return nil
}

// person is somebody to be known from now on.
type person struct {
	Names
	phone    phone.Number
	email    string
	language string // "" for Russian
	translit bool
	bornOn   time.Time // zero: not given
}

func addRepresentative(ctx context.Context, tx pgx.Tx, p person) (RepresentativeID, error) {
	if p.language == "" {
		p.language = "ru"
	}
	var id RepresentativeID
	err := tx.QueryRow(ctx, `
		INSERT INTO access.representative (phone, email, family_name, given_name, patronymic, language, translit, born_on)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING id`,
		p.phone, p.email, p.Family, p.Given, p.Patronymic, p.language, p.translit, moment(p.bornOn)).Scan(&id)
	if err != nil {
		return 0, fmt.Errorf("store a representative: %w", err)
	}
	return id, nil
}

// grantOf is a role to be given to somebody for several children.
type grantOf struct {
	children  []ledger.PersonID
	to        RepresentativeID
	role      Role
	since     time.Time // zero: now
	until     time.Time // zero: open-ended
	grantedBy RepresentativeID
	by        Actor
	at        time.Time
}

// grant gives the role, or renews it. Who is legal for a child is not made its
// trusted person; who is trusted may become legal.
func grant(ctx context.Context, tx pgx.Tx, g grantOf) error {
	if g.since.IsZero() {
		g.since = g.at
	}
	_, err := tx.Exec(ctx, `
		WITH wanted AS (
		    SELECT c.child_id
		      FROM unnest($1::bigint[]) c (child_id)
		     WHERE $3 <> 'trusted'
		        OR NOT EXISTS (SELECT FROM access.legal($6) l WHERE l.child_id = c.child_id AND l.representative_id = $2)
		), granted AS (
		    INSERT INTO access.guardian AS g (child_id, representative_id, role, since, until, granted_by)
		    SELECT child_id, $2, $3, $4, $5, nullif($7::bigint, 0)
		      FROM wanted
		     ORDER BY child_id
		    ON CONFLICT (child_id, representative_id, companion) DO UPDATE
		       SET role = excluded.role,
		           since = CASE WHEN g.revoked_at IS NULL AND (g.until IS NULL OR g.until > $6)
		                        THEN least(g.since, excluded.since) ELSE excluded.since END,
		           until = excluded.until, granted_by = excluded.granted_by, revoked_at = NULL
		    RETURNING child_id, since, until
		)
		INSERT INTO access.guardian_event (child_id, representative_id, role, what, since, until, at, actor_kind, actor_id)
		SELECT child_id, $2, $3, 'granted', since, until, $6, $8, $9 FROM granted`,
		g.children, g.to, g.role, g.since, moment(g.until), g.at, g.grantedBy, g.by.Kind, g.by.ID)
	if err != nil {
		return fmt.Errorf("grant representative %d the role %s: %w", g.to, g.role, err)
	}
	return nil
}
