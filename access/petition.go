package access

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"zvonok/ledger"
	"zvonok/ledger/pg"
)

// Limits of petitions.
const (
	PetitionLife    = 30 * 24 * time.Hour // for a school to decide
	petitionsPerDay = 10                  // of one representative, within 24 hours
	maxPetitions    = 200                 // of one list
	maxReason       = 200                 // characters of a refusal's reason
)

// The refusals of petitions.
var (
	ErrTooManyPetitions = errors.New("ten applications in a day are enough")
	ErrNoPetition       = errors.New("no such application waits for a decision")
	ErrPetitionReason   = errors.New("a refusal has a reason of at most 200 characters on one line")
)

// PetitionID names a petition.
type PetitionID int64

// PetitionKind is what a petition asks for.
type PetitionKind string

// The kinds.
const (
	ForConsent    PetitionKind = "application" // a consent, new or renewed, with companions perhaps
	ForCompanions PetitionKind = "companions"  // only that somebody may lead the children (R13, R49)
)

// Petition is an application that a legal representative has made electronically,
// signed in by a code to the phone that stands in it (R25, R27, R28). It grants
// nothing until the school has accepted it, as it does the paper: a code proves a
// phone, and not whose child it is.
type Petition struct {
	ID           PetitionID
	Organisation ledger.OrganisationID
	By           RepresentativeID
	Kind         PetitionKind
	Form         Application // empty once its time is over
	State        string      // submitted, accepted, refused, withdrawn, expired
	SubmittedAt  time.Time
	DecidedAt    time.Time // zero while it is submitted
	Reason       string    // of a refusal
	// Repeated tells of an answer of [Petitioned] that the same had been submitted before.
	Repeated bool
}

// Petitioned submits a petition of a legal representative, who is signed in. Of
// the form he gives the organisation, the children, the purposes, the last day,
// the channels and the companions; who he is, and the day, are known. Whether the
// children exist is told to nobody but the school. Trusted persons are invited
// ([Invite]) and not named here, where they do not sign.
//
// It returns [ErrNotAllowed] for who is a legal representative of no child, a
// *[FormError], and [ErrTooManyPetitions].
func Petitioned(
	ctx context.Context, tx pgx.Tx, who Representative, kind PetitionKind, form Application, now time.Time,
) (Petition, error) {
	// The row is locked, so that petitions are counted one after the other.
	var legal bool
	err := tx.QueryRow(ctx, `
		WITH own AS MATERIALIZED (SELECT id FROM access.representative WHERE id = $1 AND phone = $2 FOR UPDATE)
		SELECT EXISTS (SELECT FROM own) AND EXISTS (SELECT FROM access.legal($3) WHERE representative_id = $1)`,
		who.ID, who.Phone, now).Scan(&legal)
	if err != nil {
		return Petition{}, fmt.Errorf("ask whether representative %d may apply: %w", who.ID, err)
	}
	if !legal {
		return Petition{}, ErrNotAllowed
	}
	organisation, err := organisationOf(ctx, tx, form.Organisation)
	if err != nil {
		return Petition{}, err
	}
	year, month, day := now.In(organisation.Location).Date()
	form.SignedOn = Date{Time: time.Date(year, month, day, 0, 0, 0, 0, time.UTC)}
	form.Reference = "e"
	form.Applicant = Applicant{
		Names: who.Names, Phone: who.Phone.E164(), Email: who.Email, Language: string(who.Language), Translit: who.Translit,
	}
	_, problems := form.check()
	problems = append(problems, form.checkCompanions(organisation, kind, now)...)
	if problems != nil {
		return Petition{}, &FormError{problems}
	}
	text, err := json.Marshal(form)
	if err != nil {
		return Petition{}, fmt.Errorf("write the form: %w", err)
	}
	p := Petition{Organisation: organisation.ID, By: who.ID, Kind: kind, Form: form, State: "submitted", SubmittedAt: now}
	err = tx.QueryRow(ctx, `
		SELECT id, submitted_at FROM access.petition
		 WHERE representative_id = $1 AND kind = $2 AND state = 'submitted' AND submitted_at > $3 AND form = $4::jsonb`,
		who.ID, kind, now.Add(-PetitionLife), text).Scan(&p.ID, &p.SubmittedAt)
	if err == nil {
		p.Repeated = true
		return p, nil
	}
	if !errors.Is(err, pgx.ErrNoRows) {
		return Petition{}, fmt.Errorf("look for the petition: %w", err)
	}
	var today int
	if err := tx.QueryRow(ctx, `SELECT count(*) FROM access.petition WHERE representative_id = $1 AND submitted_at > $2`,
		who.ID, now.Add(-24*time.Hour)).Scan(&today); err != nil {
		return Petition{}, fmt.Errorf("count the petitions of representative %d: %w", who.ID, err)
	}
	if today >= petitionsPerDay {
		return Petition{}, ErrTooManyPetitions
	}
	err = tx.QueryRow(ctx, `
		INSERT INTO access.petition (organisation_id, representative_id, kind, form, state, submitted_at)
		VALUES ($1, $2, $3, $4, 'submitted', $5) RETURNING id`, organisation.ID, who.ID, kind, text, now).Scan(&p.ID)
	if err != nil {
		return Petition{}, fmt.Errorf("store a petition: %w", err)
	}
	return p, nil
}

// RenewalOf is the form by which a legal representative consents anew for a child
// (also after he has withdrawn his consent), or names its companions. It returns
// [ErrNotAllowed] for everybody else.
func RenewalOf(ctx context.Context, q pg.Querier, who RepresentativeID, child ledger.PersonID, now time.Time) (Application, error) {
	legal, err := isLegal(ctx, q, who, child, now)
	if err != nil {
		return Application{}, err
	}
	if !legal {
		return Application{}, ErrNotAllowed
	}
	people, err := ledger.People(ctx, q, []ledger.PersonID{child})
	if err != nil {
		return Application{}, err
	}
	p := people[child]
	organisations, err := ledger.Organisations(ctx, q, []ledger.OrganisationID{p.Organisation})
	if err != nil {
		return Application{}, err
	}
	return Application{
		Organisation: organisations[p.Organisation].Code,
		Children:     []ApplicationChild{{Person: p.Code, FamilyName: p.FamilyName}},
	}, nil
}

func organisationOf(ctx context.Context, q pg.Querier, code string) (ledger.Organisation, error) {
	ids, err := ledger.OrganisationsByCode(ctx, q, []string{code})
	if err != nil {
		return ledger.Organisation{}, err
	}
	id, known := ids[code]
	if !known {
		return ledger.Organisation{}, &FormError{[]FormProblem{{"organisation", "is not known"}}}
	}
	settings, err := ledger.Organisations(ctx, q, []ledger.OrganisationID{id})
	return settings[id], err
}

// checkCompanions finds what is wrong with the recipients of a petition. The
// school checks no paper here, so each has a date of birth, and the organisation's
// age (D10).
func (a *Application) checkCompanions(o ledger.Organisation, kind PetitionKind, now time.Time) []FormProblem {
	var problems []FormProblem
	if kind == ForCompanions && len(a.Recipients) == 0 {
		problems = append(problems, FormProblem{"recipients", "are needed"})
	}
	today := now.In(o.Location)
	for i, r := range a.Recipients {
		path := fmt.Sprintf("recipients[%d]", i)
		switch {
		case r.Role != Companion:
			problems = append(problems, FormProblem{path + ".role", "must be companion; a trusted person is invited"})
		case r.BornOn == nil || r.BornOn.IsZero():
			problems = append(problems, FormProblem{path + ".born_on", "is needed"})
		case r.BornOn.AddDate(o.CompanionAge, 0, 0).After(time.Date(today.Year(), today.Month(), today.Day(), 0, 0, 0, 0, time.UTC)):
			problems = append(problems, FormProblem{path + ".born_on", fmt.Sprintf("is younger than %d", o.CompanionAge)})
		case r.Until != nil && !midnight(*r.Until, o.Location, 1).After(now):
			problems = append(problems, FormProblem{path + ".until", "is past"})
		}
	}
	return problems
}

// Decided is the fact that a school has accepted or refused a petition. It is
// inserted with the decision, for who tells the applicant.
type Decided struct {
	Petition PetitionID `json:"petition"`
}

// Kind names the job.
func (Decided) Kind() string { return "petition_decided" }

// Decisions are what schools decide on petitions.
type Decisions struct{ jobs *river.Client[pgx.Tx] }

// NewDecisions returns Decisions that announce themselves by a client of the job queue.
func NewDecisions(jobs *river.Client[pgx.Tx]) *Decisions { return &Decisions{jobs} }

// Accept accepts a petition for the school (organisation 0: for any), and
// grants what it asks for from this moment on. The application gets the number
// "e-" and the petition's. It returns the form with what was taken, [ErrNoPetition],
// or the errors of [TakeApplication].
func (d *Decisions) Accept(
	ctx context.Context, tx pgx.Tx, organisation ledger.OrganisationID, id PetitionID, by Actor, now time.Time,
) (Application, Taken, error) {
	p, phone, err := lockPetition(ctx, tx, organisation, id, now)
	if err != nil {
		return Application{}, Taken{}, err
	}
	if phone != p.Form.Applicant.Phone { // R27
		return Application{}, Taken{}, &FormError{[]FormProblem{{"applicant.phone", "is no longer the applicant's; he is to apply anew"}}}
	}
	o, err := organisationOf(ctx, tx, p.Form.Organisation)
	if err != nil {
		return Application{}, Taken{}, err
	}
	if problems := p.Form.checkCompanions(o, p.Kind, now); problems != nil {
		return Application{}, Taken{}, &FormError{problems}
	}
	p.Form.Reference = "e-" + strconv.FormatInt(int64(id), 10)
	taken, err := takeApplication(ctx, tx, p.Form, terms{consents: p.Kind == ForConsent, since: now}, by, now)
	if err != nil {
		return Application{}, Taken{}, err
	}
	return p.Form, taken, d.decide(ctx, tx, id, "accepted", "", by, now)
}

// Refuse refuses a petition for the school, with a reason that the
// applicant reads. It returns [ErrNoPetition] or [ErrPetitionReason].
func (d *Decisions) Refuse(
	ctx context.Context, tx pgx.Tx, organisation ledger.OrganisationID, id PetitionID, reason string, by Actor, now time.Time,
) error {
	reason = strings.TrimSpace(reason)
	if reason == "" || len([]rune(reason)) > maxReason || !printable(reason) {
		return ErrPetitionReason
	}
	if _, _, err := lockPetition(ctx, tx, organisation, id, now); err != nil {
		return err
	}
	return d.decide(ctx, tx, id, "refused", reason, by, now)
}

func (d *Decisions) decide(ctx context.Context, tx pgx.Tx, id PetitionID, state, reason string, by Actor, now time.Time) error {
	if err := decidePetition(ctx, tx, id, state, reason, by, now); err != nil {
		return err
	}
	if _, err := d.jobs.InsertTx(ctx, tx, Decided{id}, nil); err != nil {
		return fmt.Errorf("announce the decision on petition %d: %w", id, err)
	}
	return nil
}

// DecisionToTell returns a petition of whose decision the applicant has not been
// told, and the applicant, and notes that he is told now. Of any other it returns
// [ErrNoPetition], and of one who has been erased [ErrNoRepresentative].
func DecisionToTell(ctx context.Context, tx pgx.Tx, id PetitionID, now time.Time) (p Petition, r Representative, err error) {
	err = tx.QueryRow(ctx, `
		UPDATE access.petition SET told_at = $2
		 WHERE id = $1 AND told_at IS NULL AND state IN ('accepted', 'refused')
		RETURNING id, organisation_id, representative_id, kind, form, state, submitted_at, decided_at, reason`, id, now).
		Scan(&p.ID, &p.Organisation, &p.By, &p.Kind, &p.Form, &p.State, &p.SubmittedAt, &p.DecidedAt, &p.Reason)
	if errors.Is(err, pgx.ErrNoRows) {
		return p, r, ErrNoPetition
	}
	if err != nil {
		return p, r, fmt.Errorf("read the decision on petition %d: %w", id, err)
	}
	r, err = RepresentativeByID(ctx, tx, p.By)
	return p, r, err
}

// WithdrawPetition takes an own petition back before it is decided on. One that
// is not his, or is decided on, is [ErrNoPetition].
func WithdrawPetition(ctx context.Context, tx pgx.Tx, who RepresentativeID, id PetitionID, now time.Time) error {
	p, _, err := lockPetition(ctx, tx, 0, id, now)
	if err == nil && p.By != who {
		err = ErrNoPetition
	}
	if err != nil {
		return err
	}
	return decidePetition(ctx, tx, id, "withdrawn", "", ByRepresentative(who), now)
}

// lockPetition reads a petition that waits, and the phone its applicant has now.
func lockPetition(ctx context.Context, tx pgx.Tx, organisation ledger.OrganisationID, id PetitionID, now time.Time) (
	p Petition, phone string, err error,
) {
	err = tx.QueryRow(ctx, `
		SELECT p.id, p.organisation_id, p.representative_id, p.kind, p.form, coalesce('+' || r.phone, '')
		  FROM access.petition p JOIN access.representative r ON r.id = p.representative_id
		 WHERE p.id = $1 AND p.state = 'submitted' AND p.submitted_at > $2 AND (p.organisation_id = $3 OR $3 = 0)
		   FOR UPDATE OF p`, id, now.Add(-PetitionLife), organisation).
		Scan(&p.ID, &p.Organisation, &p.By, &p.Kind, &p.Form, &phone)
	if errors.Is(err, pgx.ErrNoRows) {
		return p, "", ErrNoPetition
	}
	if err != nil {
		return p, "", fmt.Errorf("read petition %d: %w", id, err)
	}
	return p, phone, nil
}

func decidePetition(ctx context.Context, tx pgx.Tx, id PetitionID, state, reason string, by Actor, now time.Time) error {
	if _, err := tx.Exec(ctx, `
		UPDATE access.petition SET state = $2, reason = $3, decided_by = $4, decided_at = $5 WHERE id = $1`,
		id, state, reason, by.String(), now); err != nil {
		return fmt.Errorf("write petition %d as %s: %w", id, state, err)
	}
	return nil
}

// PetitionsOf returns the petitions of a representative, the newest first.
func PetitionsOf(ctx context.Context, q pg.Querier, who RepresentativeID, now time.Time) ([]Petition, error) {
	return readPetitions(ctx, q, `p.representative_id = $3 ORDER BY p.submitted_at DESC, p.id DESC`, who, now)
}

// PetitionsFor returns the petitions that wait for an organisation's decision, the oldest first.
func PetitionsFor(ctx context.Context, q pg.Querier, organisation ledger.OrganisationID, now time.Time) ([]Petition, error) {
	return readPetitions(ctx, q, `p.organisation_id = $3 AND p.state = 'submitted' AND p.submitted_at > $1
		ORDER BY p.submitted_at, p.id`, organisation, now)
}

// LookAtPetitions writes into the access log that somebody looks at what petitions say of children (D14). It is called
// before they are shown. A form may name a child that is in no register: there is nobody then to look at.
func LookAtPetitions(ctx context.Context, q pg.Querier, list []Petition, by Actor, channel Channel, now time.Time) error {
	var codes []string
	for _, p := range list {
		for _, child := range p.Form.Children {
			codes = append(codes, child.Person)
		}
	}
	if len(codes) == 0 {
		return nil
	}
	children, err := ledger.PeopleByCode(ctx, q, codes)
	if err != nil {
		return err
	}
	views := make([]View, 0, len(children))
	for _, child := range children {
		views = append(views, View{Who: by, Child: child, What: "application", Channel: channel, At: now})
	}
	return LogView(ctx, q, views)
}

func readPetitions(ctx context.Context, q pg.Querier, where string, of any, now time.Time) ([]Petition, error) {
	rows, err := q.Query(ctx, `
		SELECT p.id, p.organisation_id, p.representative_id, p.kind, p.form, p.submitted_at, p.decided_at, p.reason,
		       CASE WHEN p.state = 'submitted' AND p.submitted_at <= $1 THEN 'expired' ELSE p.state END
		  FROM access.petition p WHERE `+where+` LIMIT $2`, now.Add(-PetitionLife), maxPetitions, of)
	if err != nil {
		return nil, fmt.Errorf("read petitions: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Petition, error) {
		var p Petition
		var decided *time.Time
		err := row.Scan(&p.ID, &p.Organisation, &p.By, &p.Kind, &p.Form, &p.SubmittedAt, &decided, &p.Reason, &p.State)
		p.DecidedAt = timeOf(decided)
		return p, err
	})
	if err != nil {
		return nil, fmt.Errorf("read petitions: %w", err)
	}
	return list, nil
}
