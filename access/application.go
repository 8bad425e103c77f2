package access

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access/phone"
	"zvonok/ledger"
	"zvonok/ledger/pg"
)

// Limits of an application.
const (
	maxApplication = 64 << 10 // octets of JSON; the longest honest one has under 8,000
	maxChildren    = 20       // the paper form has lines for three
	maxRecipients  = 20
)

// Application is the application for informing, on paper or on the portal, as
// the school keys it in: a legal representative of several children asks to be
// informed and names several recipients (R22 to R25).
type Application struct {
	// Reference is the number on the form. Inside an organisation it names the
	// application: the same one keyed in twice is one.
	Reference    string `json:"reference"`
	Organisation string `json:"organisation"` // the registry's id
	SignedOn     Date   `json:"signed_on"`
	// Applicant is the legal representative who signed.
	Applicant Applicant          `json:"applicant"`
	Children  []ApplicationChild `json:"children"`
	// Purposes are "visits" and "meals"; empty means both.
	Purposes []string `json:"purposes,omitempty"`
	// ConsentUntil is the last day of the consent; without it, open-ended.
	ConsentUntil *Date `json:"consent_until,omitempty"`
	// Channels are the ticks of the form, "sms" and "email"; empty means SMS.
	Channels []string `json:"channels,omitempty"`
	// Recipients are the people to be given access, or to lead the children.
	Recipients []Recipient `json:"recipients,omitempty"`
}

// Applicant is who signs an application.
type Applicant struct {
	Names
	Phone    string `json:"phone"`
	Email    string `json:"email,omitempty"`
	Language string `json:"language,omitempty"` // "ru" (also when empty) or "en"
	Translit bool   `json:"translit,omitempty"`
}

// ApplicationChild is a child of an application, by the registry's id; the
// surname is checked against the register, because a number is easily mistyped.
type ApplicationChild struct {
	Person     string `json:"person"`
	FamilyName string `json:"family_name"`
}

// Recipient is a line of the table of people given access.
type Recipient struct {
	Applicant
	Role   Role  `json:"role"`              // trusted or companion
	BornOn *Date `json:"born_on,omitempty"` // for the age of companions (D10)
	Until  *Date `json:"until,omitempty"`   // the last day; without it, open-ended
	// Children are some of the application's; empty means all.
	Children []string `json:"children,omitempty"`
}

// Date is a day written like 2026-11-22.
type Date struct {
	time.Time
	// wrong is a text that is no day; the check of the form names its field.
	wrong string
}

// UnmarshalText reads the day.
func (d *Date) UnmarshalText(text []byte) error {
	day, err := time.Parse(time.DateOnly, string(text))
	if err != nil || day.Year() < 1900 || day.Year() > 2200 {
		return fmt.Errorf("%.20q is not a date like 2026-11-22", text)
	}
	*d = Date{Time: day}
	return nil
}

// MarshalText writes the day.
func (d Date) MarshalText() ([]byte, error) { return []byte(d.Format(time.DateOnly)), nil }

// UnmarshalJSON reads the day from a JSON string. A text that is no day is kept
// for the check of the form, which alone knows in which field it stands.
func (d *Date) UnmarshalJSON(text []byte) error {
	var day string
	if err := json.Unmarshal(text, &day); err != nil || d.UnmarshalText([]byte(day)) != nil {
		*d = Date{wrong: fmt.Sprintf("%.20s is not a date like \"2026-11-22\"", text)}
	}
	return nil
}

// check reports a day that is none.
func (d *Date) check(path string, problems []FormProblem) []FormProblem {
	if d == nil || d.wrong == "" {
		return problems
	}
	return append(problems, FormProblem{path, d.wrong})
}

// MarshalJSON writes the day as a JSON string.
func (d Date) MarshalJSON() ([]byte, error) { return json.Marshal(d.Format(time.DateOnly)) }

// FormProblem is one thing that is wrong with an application.
type FormProblem struct {
	Path   string `json:"path"` // such as "children[1].person"
	Reason string `json:"reason"`
}

// FormError is an application that cannot be taken, with everything that is
// wrong with it. It is for whoever keyed it in and not for a log.
type FormError struct{ Problems []FormProblem }

// Error names the first problem and how many there are.
func (e *FormError) Error() string {
	text := e.Problems[0].Path + ": " + e.Problems[0].Reason
	if len(e.Problems) > 1 {
		text = fmt.Sprintf("%d problems, the first is %s", len(e.Problems), text)
	}
	return text
}

// ErrReference is another application with the same number.
var ErrReference = errors.New("another application of the organisation has this number")

// ParseApplication reads an application from JSON. Unknown fields are errors:
// a misspelt one would silently drop what a parent has ticked. It returns a
// *[FormError] that lists what is wrong.
func ParseApplication(r io.Reader) (Application, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxApplication+1))
	if err != nil {
		return Application{}, fmt.Errorf("read an application: %w", err)
	}
	if len(text) > maxApplication {
		return Application{}, &FormError{[]FormProblem{{"", fmt.Sprintf("is longer than %d octets", maxApplication)}}}
	}
	var a Application
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&a); err != nil {
		return Application{}, &FormError{[]FormProblem{jsonProblem(err)}}
	}
	if decoder.More() {
		return Application{}, &FormError{[]FormProblem{{"", "something follows the application"}}}
	}
	_, problems := a.check()
	if problems != nil {
		return Application{}, &FormError{problems}
	}
	return a, nil
}

func jsonProblem(err error) FormProblem {
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		// Embedded structs are ours, not the form's.
		path := strings.ReplaceAll(strings.ReplaceAll(wrong.Field, "Names.", ""), "Applicant.", "")
		return FormProblem{path, fmt.Sprintf("a JSON %s stands where a %s is needed", wrong.Value, wrong.Type.Kind())}
	}
	return FormProblem{"", strings.TrimPrefix(err.Error(), "json: ")}
}

// checked is what an application says, in our own terms.
type checked struct {
	applicant     person
	recipients    []person // in the order of the form
	visits, meals bool
}

// check finds everything that is wrong with the form by itself.
func (a *Application) check() (checked, []FormProblem) {
	var problems []FormProblem
	fail := func(path, reason string) { problems = append(problems, FormProblem{path, reason}) }
	c := checked{visits: len(a.Purposes) == 0, meals: len(a.Purposes) == 0}

	if a.Reference == "" || len([]rune(a.Reference)) > 64 || !printable(a.Reference) {
		fail("reference", "is needed, at most 64 characters")
	}
	if a.Reference == registryForm {
		fail("reference", "is taken by the registry")
	}
	if a.Organisation == "" {
		fail("organisation", "is needed")
	}
	problems = a.SignedOn.check("signed_on", problems)
	problems = a.ConsentUntil.check("consent_until", problems)
	if a.SignedOn.IsZero() && a.SignedOn.wrong == "" {
		fail("signed_on", "is needed")
	}
	if a.ConsentUntil != nil && a.ConsentUntil.wrong == "" && a.ConsentUntil.Before(a.SignedOn.Time) {
		fail("consent_until", "is before signed_on")
	}
	for i, purpose := range a.Purposes {
		switch purpose {
		case "visits":
			c.visits = true
		case "meals":
			c.meals = true
		default:
			fail(fmt.Sprintf("purposes[%d]", i), "must be visits or meals")
		}
	}
	for i, channel := range a.Channels {
		switch {
		case channel != "sms" && channel != "email":
			fail(fmt.Sprintf("channels[%d]", i), "must be sms or email")
		case channel == "email" && a.Applicant.Email == "":
			fail("applicant.email", "is needed for the channel email")
		}
	}
	c.applicant, problems = a.Applicant.check("applicant", problems)

	if len(a.Children) == 0 || len(a.Children) > maxChildren {
		fail("children", fmt.Sprintf("1 to %d are needed", maxChildren))
	}
	var codes []string
	for i, child := range a.Children {
		path := fmt.Sprintf("children[%d]", i)
		switch {
		case child.Person == "":
			fail(path+".person", "is needed")
		case slices.Contains(codes, child.Person):
			fail(path+".person", "stands twice")
		}
		if child.FamilyName == "" {
			fail(path+".family_name", "is needed")
		}
		codes = append(codes, child.Person)
	}

	if len(a.Recipients) > maxRecipients {
		fail("recipients", fmt.Sprintf("at most %d", maxRecipients))
	}
	for i, recipient := range a.Recipients {
		path := fmt.Sprintf("recipients[%d]", i)
		var p person
		p, problems = recipient.check(path, problems)
		if recipient.Role != Trusted && recipient.Role != Companion {
			fail(path+".role", "must be trusted or companion")
		}
		problems = recipient.BornOn.check(path+".born_on", problems)
		problems = recipient.Until.check(path+".until", problems)
		if recipient.BornOn != nil {
			p.bornOn = recipient.BornOn.Time
		}
		if recipient.Until != nil && recipient.Until.wrong == "" && recipient.Until.Before(a.SignedOn.Time) {
			fail(path+".until", "is before signed_on")
		}
		for j, code := range recipient.Children {
			if !slices.Contains(codes, code) {
				fail(fmt.Sprintf("%s.children[%d]", path, j), "is not among the children of the application")
			}
		}
		if p.phone != "" && p.phone == c.applicant.phone {
			fail(path+".phone", "is the applicant's own")
		}
		c.recipients = append(c.recipients, p)
	}
	return c, problems
}

func (a Applicant) check(path string, problems []FormProblem) (person, []FormProblem) {
	p := person{Names: a.Names, email: a.Email, language: a.Language, translit: a.Translit}
	for _, name := range []struct {
		field, text string
		needed      bool
	}{
		{"family_name", a.Family, true}, {"given_name", a.Given, true}, {"patronymic", a.Patronymic, false},
	} {
		switch {
		case name.needed && strings.TrimSpace(name.text) == "":
			problems = append(problems, FormProblem{path + "." + name.field, "is needed"})
		case !isName(name.text):
			problems = append(problems, FormProblem{path + "." + name.field, "is too long or holds control characters"})
		}
	}
	number, err := phone.Parse(a.Phone, homeRegion)
	if err != nil {
		problems = append(problems, FormProblem{path + ".phone", err.Error()})
	}
	p.phone = number
	if a.Email != "" && !isMailbox(a.Email) {
		problems = append(problems, FormProblem{path + ".email", "is not a mailbox like name@example.org"})
	}
	if a.Language != "" && a.Language != "ru" && a.Language != "en" {
		problems = append(problems, FormProblem{path + ".language", "must be ru or en"})
	}
	return p, problems
}

// isName reports whether a text may be a name, or be empty.
func isName(text string) bool { return len([]rune(text)) <= maxName && printable(text) }

// printable reports whether a text holds no control or direction characters,
// by which a name could change what it is printed into.
func printable(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool {
		return r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == 0x061c || r == 0x200e || r == 0x200f ||
			r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069 || r == 0xfeff
	})
}

// ApplicationID names an application.
type ApplicationID int64

// Granted is a right that an application gave.
type Granted struct {
	Child          ledger.PersonID
	Representative RepresentativeID
	Role           Role
}

// Taken is an application that has been taken. The caller gives the people in
// Granted their first wishes, by the channels of the form (spec/notices.md,
// Subscriptions); for a repeated one there is nothing to do.
type Taken struct {
	ID        ApplicationID
	Repeated  bool // it had been keyed in before
	Applicant RepresentativeID
	Granted   []Granted
}

// TakeApplication stores an application that [ParseApplication] has read, with
// everything it grants: the applicant becomes a legal representative of each
// child and consents, the recipients become trusted persons or companions. From
// the commit on the cabinet of these phones shows the children (R26, R27).
//
// It returns a *[FormError] when the form contradicts the register or a phone
// belongs to somebody of another name, and [ErrReference].
func TakeApplication(ctx context.Context, tx pgx.Tx, a Application, by Actor, now time.Time) (Taken, error) {
	return takeApplication(ctx, tx, a, terms{consents: true}, by, now)
}

// terms are on what an application is taken.
type terms struct {
	// consents: the applicant becomes a legal representative and consents. Without
	// it only the recipients are taken, and the applicant must be legal already.
	consents bool
	// since is when all of it begins; zero: with the day on which it was signed.
	since time.Time
}

func takeApplication(ctx context.Context, tx pgx.Tx, a Application, on terms, by Actor, now time.Time) (Taken, error) {
	c, problems := a.check()
	if problems != nil {
		return Taken{}, &FormError{problems}
	}
	organisations, err := ledger.OrganisationsByCode(ctx, tx, []string{a.Organisation})
	if err != nil {
		return Taken{}, err
	}
	organisation, known := organisations[a.Organisation]
	if !known {
		return Taken{}, &FormError{[]FormProblem{{"organisation", "is not known"}}}
	}
	// Applications of one organisation take turns, so that one keyed in by two
	// people at the same time is found to be one.
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock('access.application'::regclass::int, $1::int)`,
		organisation); err != nil {
		return Taken{}, fmt.Errorf("wait for other applications: %w", err)
	}
	form, err := json.Marshal(a)
	if err != nil {
		return Taken{}, fmt.Errorf("write the form: %w", err)
	}
	var taken Taken
	var same bool
	err = tx.QueryRow(ctx, `
		SELECT id, representative_id, form = $3::jsonb FROM access.application
		 WHERE organisation_id = $1 AND reference = $2`, organisation, a.Reference, form).
		Scan(&taken.ID, &taken.Applicant, &same)
	switch {
	case err == nil && same:
		taken.Repeated = true
		return taken, nil
	case err == nil:
		return Taken{}, ErrReference
	case !errors.Is(err, pgx.ErrNoRows):
		return Taken{}, fmt.Errorf("look for the application: %w", err)
	}

	settings, err := ledger.Organisations(ctx, tx, []ledger.OrganisationID{organisation})
	if err != nil {
		return Taken{}, err
	}
	zone := settings[organisation].Location
	if midnight(a.SignedOn, zone, 0).After(now) {
		return Taken{}, &FormError{[]FormProblem{{"signed_on", "is in the future"}}}
	}
	children, problems, err := a.findChildren(ctx, tx, organisation)
	if err != nil {
		return Taken{}, err
	}
	ids, more, err := findPeople(ctx, tx, append([]person{c.applicant}, c.recipients...))
	if err != nil {
		return Taken{}, err
	}
	if problems = append(problems, more...); problems != nil {
		return Taken{}, &FormError{problems}
	}
	taken.Applicant = ids[0]
	err = tx.QueryRow(ctx, `
		INSERT INTO access.application (organisation_id, reference, representative_id, signed_on, recorded_at,
		                                actor_kind, actor_id, form)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING id`,
		organisation, a.Reference, taken.Applicant, a.SignedOn.Time, now, by.Kind, by.ID, form).Scan(&taken.ID)
	if err != nil {
		return Taken{}, fmt.Errorf("store an application: %w", err)
	}
	since := on.since
	if since.IsZero() {
		since = midnight(a.SignedOn, zone, 0)
	}
	all := make([]ledger.PersonID, len(a.Children))
	for i, child := range a.Children {
		all[i] = children[child.Person]
	}
	if on.consents {
		err = taken.consent(ctx, tx, a, c, all, since, zone, by, now)
	} else {
		err = a.checkLegal(ctx, tx, taken.Applicant, all, now)
	}
	if err != nil {
		return Taken{}, err
	}
	for i, recipient := range a.Recipients {
		g := grantOf{
			children: all, to: ids[i+1], role: recipient.Role, since: since, grantedBy: taken.Applicant, by: by, at: now,
		}
		if recipient.Until != nil {
			g.until = midnight(*recipient.Until, zone, 1)
		}
		if len(recipient.Children) > 0 {
			g.children = nil
			for _, code := range recipient.Children {
				g.children = append(g.children, children[code])
			}
		}
		if err := taken.grant(ctx, tx, g); err != nil {
			return Taken{}, err
		}
	}
	return taken, nil
}

// consent makes the applicant a legal representative of the children, and notes
// what he has consented to.
func (t *Taken) consent(
	ctx context.Context, tx pgx.Tx, a Application, c checked, children []ledger.PersonID, since time.Time, zone *time.Location,
	by Actor, now time.Time,
) error {
	if err := t.grant(ctx, tx, grantOf{children: children, to: t.Applicant, role: Legal, since: since, by: by, at: now}); err != nil {
		return err
	}
	var until time.Time
	if a.ConsentUntil != nil {
		until = midnight(*a.ConsentUntil, zone, 1)
	}
	if _, err := tx.Exec(ctx, `
		INSERT INTO access.consent (child_id, representative_id, visits, meals, application_id, form, given_on, since, until)
		SELECT child_id, $2, $3, $4, $5, $6, $7, $8, $9 FROM unnest($1::bigint[]) c (child_id)`,
		children, t.Applicant, c.visits, c.meals, t.ID, a.Reference, a.SignedOn.Time, since, moment(until)); err != nil {
		return fmt.Errorf("store the consents of application %d: %w", t.ID, err)
	}
	return nil
}

// checkLegal answers whether the applicant is a legal representative of all of the children.
func (a *Application) checkLegal(
	ctx context.Context, q pg.Querier, who RepresentativeID, children []ledger.PersonID, now time.Time,
) error {
	var problems []FormProblem
	for i, child := range children {
		legal, err := isLegal(ctx, q, who, child, now)
		if err != nil {
			return err
		}
		if !legal {
			problems = append(problems, FormProblem{fmt.Sprintf("children[%d]", i), "is no child of which the applicant is a legal representative"})
		}
	}
	if problems != nil {
		return &FormError{problems}
	}
	return nil
}

func (t *Taken) grant(ctx context.Context, tx pgx.Tx, g grantOf) error {
	for _, child := range g.children {
		t.Granted = append(t.Granted, Granted{child, g.to, g.role})
	}
	return grant(ctx, tx, g)
}

// midnight returns the beginning of a day, days later, in a zone.
func midnight(d Date, zone *time.Location, days int) time.Time {
	return time.Date(d.Year(), d.Month(), d.Day()+days, 0, 0, 0, 0, zone)
}

// findChildren resolves the children of a form against the register.
func (a *Application) findChildren(ctx context.Context, tx pgx.Tx, organisation ledger.OrganisationID) (
	map[string]ledger.PersonID, []FormProblem, error,
) {
	codes := make([]string, len(a.Children))
	for i, child := range a.Children {
		codes[i] = child.Person
	}
	ids, err := ledger.PeopleByCode(ctx, tx, codes)
	if err != nil {
		return nil, nil, err
	}
	people := make([]ledger.PersonID, 0, len(ids))
	for _, id := range ids {
		people = append(people, id)
	}
	register, err := ledger.People(ctx, tx, people)
	if err != nil {
		return nil, nil, err
	}
	var problems []FormProblem
	for i, child := range a.Children {
		p, known := register[ids[child.Person]]
		// A child of another organisation is as unknown as one that does not
		// exist: a school cannot find out who goes elsewhere.
		if !known || p.Organisation != organisation || p.Kind != ledger.Pupil ||
			!sameName(p.FamilyName, child.FamilyName) {
			problems = append(problems, FormProblem{
				fmt.Sprintf("children[%d]", i),
				"no child of the organisation has this number and surname",
			})
		}
	}
	return ids, problems, nil
}

// findPeople returns the representatives of these phones, the first being the
// applicant, and adds those who are new. A phone that belongs to somebody of
// another name is a problem: the phone is the identity (D3).
func findPeople(ctx context.Context, tx pgx.Tx, people []person) ([]RepresentativeID, []FormProblem, error) {
	var problems []FormProblem
	ids := make([]RepresentativeID, len(people))
	for i, p := range people {
		path := "applicant.phone"
		if i > 0 {
			path = fmt.Sprintf("recipients[%d].phone", i-1)
		}
		known, err := RepresentativeByPhone(ctx, tx, p.phone)
		switch {
		case errors.Is(err, ErrNoRepresentative):
			if known.ID, err = addRepresentative(ctx, tx, p); err != nil {
				return nil, nil, err
			}
		case err != nil:
			return nil, nil, err
		case !sameName(known.Names.Family, p.Family) || !sameName(known.Names.Given, p.Given):
			problems = append(problems, FormProblem{path, "belongs to a person of another name"})
		default:
			// A mailbox or a date of birth that was not known is added, none is replaced.
			if _, err := tx.Exec(ctx, `
				UPDATE access.representative
				   SET email = CASE WHEN email = '' THEN $2 ELSE email END, born_on = coalesce(born_on, $3)
				 WHERE id = $1`, known.ID, p.email, moment(p.bornOn)); err != nil {
				return nil, nil, fmt.Errorf("complete representative %d: %w", known.ID, err)
			}
		}
		ids[i] = known.ID
	}
	return ids, problems, nil
}

// Filed is an application as its applicant reads it again.
type Filed struct {
	ID           ApplicationID
	Organisation ledger.OrganisationID
	RecordedAt   time.Time
	Form         Application
}

// Applications returns what a representative has applied for, newest first. They
// are his own declarations.
func Applications(ctx context.Context, q pg.Querier, who RepresentativeID) ([]Filed, error) {
	rows, err := q.Query(ctx, `
		SELECT id, organisation_id, recorded_at, form FROM access.application
		 WHERE representative_id = $1 AND form <> '{}' ORDER BY recorded_at DESC, id DESC`, who)
	if err != nil {
		return nil, fmt.Errorf("read the applications of representative %d: %w", who, err)
	}
	filed, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Filed])
	if err != nil {
		return nil, fmt.Errorf("read the applications of representative %d: %w", who, err)
	}
	return filed, nil
}
