package parent

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/access/reader"
	"zvonok/gateway/subscription"
	"zvonok/ledger"
)

// ApplicationWish is an application made electronically (R22 to R25, R28): who
// applies is who is signed in, and the phone is the one that has been proved (R27).
type ApplicationWish struct {
	Organisation string          `json:"organisation" minLength:"1" maxLength:"64" example:"s-1" doc:"The school's id in the registry."`
	Children     []WishedChild   `json:"children" nullable:"false" minItems:"1" maxItems:"20"`
	Purposes     []string        `json:"purposes,omitempty" nullable:"false" maxItems:"2" enum:"visits,meals" doc:"Of what to be informed; empty: both."`
	Until        date            `json:"until,omitempty" doc:"The last day of the consent; without it, until you withdraw it."`
	Channels     []string        `json:"channels,omitempty" nullable:"false" maxItems:"2" enum:"sms,email" doc:"Empty: SMS."`
	Companions   []CompanionWish `json:"companions,omitempty" nullable:"false" maxItems:"20" doc:"Who may lead the children; trusted persons are invited instead."`
}

// WishedChild is a child by the registry's id and the surname, which must match.
type WishedChild struct {
	Person     string `json:"person" minLength:"1" maxLength:"64" example:"p-17"`
	FamilyName string `json:"family_name" minLength:"1" maxLength:"100"`
}

// CompanionWish is somebody who may lead a child to and from a kindergarten (R13, R49, D10).
type CompanionWish struct {
	FamilyName string `json:"family_name" minLength:"1" maxLength:"100"`
	GivenName  string `json:"given_name" minLength:"1" maxLength:"100"`
	Patronymic string `json:"patronymic,omitempty" maxLength:"100"`
	Phone      string `json:"phone" maxLength:"64" example:"+79000000002"`
	BornOn     date   `json:"born_on" doc:"Who is below the organisation's age is refused."`
	Until      date   `json:"until,omitempty" doc:"The last day; without it, until you end it."`
}

// RenewalWish is a consent for a child given anew.
type RenewalWish struct {
	Purposes []string `json:"purposes,omitempty" nullable:"false" maxItems:"2" enum:"visits,meals" doc:"Of what to be informed; empty: both."`
	Until    date     `json:"until,omitempty" doc:"The last day of the consent; without it, until you withdraw it."`
}

// PetitionView is an electronic application.
type PetitionView struct {
	ID          int64              `json:"id"`
	Kind        string             `json:"kind" enum:"application,companions" doc:"application: a consent, and perhaps companions; companions: only those."`
	State       string             `json:"state" enum:"submitted,accepted,refused,withdrawn,expired" doc:"It grants nothing until the school has accepted it; after 30 days it expires."`
	SubmittedAt time.Time          `json:"submitted_at"`
	DecidedAt   *time.Time         `json:"decided_at,omitempty"`
	Reason      string             `json:"reason,omitempty" doc:"Why it was refused."`
	Repeated    bool               `json:"repeated,omitempty" doc:"The same waits already; nothing was changed."`
	Form        access.Application `json:"form" doc:"As the school reads it; empty 30 days after the decision."`
}

// PetitionsView are electronic applications.
type PetitionsView struct {
	Petitions []PetitionView `json:"petitions" nullable:"false"`
}

// RefusalWish refuses an electronic application.
type RefusalWish struct {
	Reason string `json:"reason" minLength:"1" maxLength:"200" doc:"What the applicant reads."`
}

type OfPetition struct {
	Petition string `path:"petition" maxLength:"32"`
}

// Petition shows an electronic application.
func Petition(p access.Petition) PetitionView {
	return PetitionView{
		ID: int64(p.ID), Kind: string(p.Kind), State: p.State, SubmittedAt: p.SubmittedAt, DecidedAt: moment(p.DecidedAt, time.UTC),
		Reason: p.Reason, Repeated: p.Repeated, Form: p.Form,
	}
}

// dayOf reads an optional day.
func dayOf(d date, field string) (*access.Date, error) {
	if d == "" {
		return nil, nil
	}
	var day access.Date
	if err := day.UnmarshalText([]byte(d)); err != nil {
		return nil, wrong(field, "must be a date like 2026-11-23")
	}
	return &day, nil
}

func companion(c CompanionWish) (access.Recipient, error) {
	born, err := dayOf(c.BornOn, "born_on")
	if err != nil {
		return access.Recipient{}, err
	}
	until, err := dayOf(c.Until, "until")
	return access.Recipient{
		Applicant: access.Applicant{Names: access.Names{Family: c.FamilyName, Given: c.GivenName, Patronymic: c.Patronymic}, Phone: c.Phone},
		Role:      access.Companion, BornOn: born, Until: until,
	}, err
}

// petitions are the routes by which legal representatives apply electronically.
func (s routes) petitions() {
	show(s, route{
		method: http.MethodGet, path: "/petitions", id: "list-petitions", summary: "Your electronic applications, and what became of them",
	}, func(ctx context.Context, v visitor, _ *struct{}) (PetitionsView, error) {
		return petitionsView(access.PetitionsOf(ctx, s.pool, v.session.Representative.ID, v.now))
	})
	show(s, route{
		method: http.MethodPost, path: "/petitions", id: "petition", status: http.StatusCreated, summary: "Apply to a school electronically",
		text: "For who is a legal representative already, of these children or of others. The school looks whose the children are, " +
			"accepts or refuses; until then nothing changes. Whether a child exists is not told. The same sent again changes " +
			"nothing. Ten a day.",
	}, func(ctx context.Context, v visitor, in *struct{ Body ApplicationWish }) (PetitionView, error) {
		until, err := dayOf(in.Body.Until, "until")
		if err != nil {
			return PetitionView{}, err
		}
		form := access.Application{
			Organisation: in.Body.Organisation, Purposes: in.Body.Purposes, Channels: in.Body.Channels, ConsentUntil: until,
		}
		for _, c := range in.Body.Children {
			form.Children = append(form.Children, access.ApplicationChild{Person: c.Person, FamilyName: c.FamilyName})
		}
		for _, c := range in.Body.Companions {
			r, err := companion(c)
			if err != nil {
				return PetitionView{}, err
			}
			form.Recipients = append(form.Recipients, r)
		}
		return s.submit(ctx, v, access.ForConsent, form)
	})
	renewal := func(path, id, summary, text string) route {
		return route{
			method: http.MethodPost, path: "/children/{child}/" + path, id: id, status: http.StatusCreated, summary: summary,
			text: text + " The school accepts or refuses it; until then nothing changes. Legal representatives only.",
		}
	}
	show(s, renewal("consent", "renew-consent", "Consent anew", "Also after you have withdrawn your consent, or it has ended."),
		func(ctx context.Context, v visitor, in *struct {
			OfChild
			Body RenewalWish
		},
		) (PetitionView, error) {
			return s.renew(ctx, v, in.Child, access.ForConsent, func(form *access.Application) (err error) {
				form.Purposes = in.Body.Purposes
				form.ConsentUntil, err = dayOf(in.Body.Until, "until")
				return err
			})
		})
	show(s, renewal("companions", "name-companion", "Name somebody who may lead the child", "By names, phone, date of birth and last day."),
		func(ctx context.Context, v visitor, in *struct {
			OfChild
			Body CompanionWish
		},
		) (PetitionView, error) {
			return s.renew(ctx, v, in.Child, access.ForCompanions, func(form *access.Application) error {
				r, err := companion(in.Body)
				form.Recipients = []access.Recipient{r}
				return err
			})
		})
	do(s, route{
		method: http.MethodDelete, path: "/petitions/{petition}", id: "withdraw-petition", summary: "Take an electronic application back",
	}, func(ctx context.Context, v visitor, in *OfPetition) error {
		petition, err := id[access.PetitionID](in.Petition)
		if err != nil {
			return err
		}
		return s.write(ctx, func(tx pgx.Tx) error {
			return access.WithdrawPetition(ctx, tx, v.session.Representative.ID, petition, v.now)
		})
	})
}

func petitionsView(list []access.Petition, err error) (PetitionsView, error) {
	view := PetitionsView{Petitions: make([]PetitionView, len(list))}
	for i, p := range list {
		view.Petitions[i] = Petition(p)
	}
	return view, err
}

func (s routes) submit(ctx context.Context, v visitor, kind access.PetitionKind, form access.Application) (view PetitionView, err error) {
	err = s.write(ctx, func(tx pgx.Tx) error {
		p, err := access.Petitioned(ctx, tx, v.session.Representative, kind, form, v.now)
		view = Petition(p)
		return err
	})
	if errors.Is(err, access.ErrNotAllowed) {
		return view, errLegal
	}
	if err == nil && !view.Repeated {
		s.log.InfoContext(ctx, "applied electronically", "representative", int64(v.session.Representative.ID), "petition", view.ID)
	}
	return view, err
}

// renew submits a petition for a child of which the visitor is a legal
// representative, with a consent or without.
func (s routes) renew(
	ctx context.Context, v visitor, text string, kind access.PetitionKind, fill func(*access.Application) error,
) (PetitionView, error) {
	child, err := id[ledger.PersonID](text)
	if err != nil {
		return PetitionView{}, err
	}
	form, err := access.RenewalOf(ctx, s.pool, v.session.Representative.ID, child, v.now)
	if err != nil {
		return PetitionView{}, s.orLegal(ctx, v, child, err)
	}
	if err := fill(&form); err != nil {
		return PetitionView{}, err
	}
	return s.submit(ctx, v, kind, form)
}

// tabletRoute is a route of the school's, asked with the key of a staff tablet.
func (s routes) tabletRoute(method, path, id, summary, text string, status int) huma.Operation {
	return huma.Operation{
		OperationID: id, Method: method, Path: applicationPath + path, Summary: summary, Description: text, Tags: []string{"staff"},
		DefaultStatus: status, MaxBodyBytes: maxBody, BodyReadTimeout: bodyTime, Security: []map[string][]string{{staffScheme: {}}},
		Middlewares: huma.Middlewares{s.measured, s.fromHere},
		Errors: []int{
			http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusUnprocessableEntity,
			http.StatusInternalServerError, http.StatusServiceUnavailable,
		},
	}
}

// AtTablet says who is at the tablet.
type AtTablet struct {
	Staff string `header:"Staff" maxLength:"64" example:"staff-3" doc:"Who is at the tablet: the registry's id of a member of staff."`
}

// atSchool runs what somebody of the staff asks for, at a tablet of the organisation.
func (s routes) atSchool(ctx context.Context, staff string, work func(ctx context.Context, of ledger.OrganisationID, v visitor) error) error {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	leave, err := s.turn(ctx)
	if err != nil {
		return s.problem(ctx, err)
	}
	defer leave()
	v := visitorOf(ctx)
	tablet, err := s.intake.Identify(ctx, s.pool, v.request)
	switch {
	case err != nil:
		return s.problem(ctx, err)
	case tablet.Kind != reader.StaffTablet:
		return s.problem(ctx, errTablet)
	}
	if err = s.checkStaff(ctx, tablet.Organisation, staff, v.now); err == nil {
		err = work(ctx, tablet.Organisation, v)
	}
	if err != nil {
		return s.problem(ctx, err)
	}
	return nil
}

// decide are the routes by which a school decides on electronic applications.
func (s routes) decide() {
	huma.Register(s.api, s.tabletRoute(http.MethodGet, "/petitions", "list-waiting-petitions",
		"The electronic applications that wait for the school", "The oldest first.", http.StatusOK),
		func(ctx context.Context, in *AtTablet) (*shown[PetitionsView], error) {
			answer := &shown[PetitionsView]{CacheControl: noStore}
			err := s.atSchool(ctx, in.Staff, func(ctx context.Context, of ledger.OrganisationID, v visitor) (err error) {
				waiting, err := access.PetitionsFor(ctx, s.pool, of, v.now)
				if err != nil {
					return err
				}
				if err := access.LookAtPetitions(ctx, s.pool, waiting, access.ByStaff(in.Staff), access.Staff, v.now); err != nil {
					return err
				}
				answer.Body, err = petitionsView(waiting, nil)
				return err
			})
			return answer, err
		})
	huma.Register(s.api, s.tabletRoute(http.MethodPost, "/petitions/{petition}/acceptance", "accept-petition",
		"Accept an electronic application", "Once you know whose the children are. Everything it asks for begins now.", http.StatusCreated),
		func(ctx context.Context, in *struct {
			AtTablet
			OfPetition
		},
		) (*shown[TakenView], error) {
			answer := &shown[TakenView]{CacheControl: noStore}
			err := s.atSchool(ctx, in.Staff, func(ctx context.Context, of ledger.OrganisationID, v visitor) error {
				petition, err := id[access.PetitionID](in.Petition)
				if err != nil {
					return err
				}
				return s.write(ctx, func(tx pgx.Tx) error {
					taken, err := subscription.EnrolPetition(ctx, tx, s.decisions, of, petition, access.ByStaff(in.Staff), v.now)
					answer.Body = Taken(taken)
					return err
				})
			})
			return answer, err
		})
	huma.Register(s.api, s.tabletRoute(http.MethodPost, "/petitions/{petition}/refusal", "refuse-petition",
		"Refuse an electronic application", "", http.StatusNoContent),
		func(ctx context.Context, in *struct {
			AtTablet
			OfPetition
			Body RefusalWish
		},
		) (*done, error) {
			return &done{noStore}, s.atSchool(ctx, in.Staff, func(ctx context.Context, of ledger.OrganisationID, v visitor) error {
				petition, err := id[access.PetitionID](in.Petition)
				if err != nil {
					return err
				}
				return s.write(ctx, func(tx pgx.Tx) error {
					return s.decisions.Refuse(ctx, tx, of, petition, in.Body.Reason, access.ByStaff(in.Staff), v.now)
				})
			})
		})
}
