package parent

import (
	"context"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/gateway/notice"
	"zvonok/ledger"
)

// ConsentsView are consents.
type ConsentsView struct {
	Consents []ConsentView `json:"consents" nullable:"false" doc:"The newest first."`
}

// ConsentView is a legal representative's consent for a child (D14).
type ConsentView struct {
	ID          int64      `json:"id"`
	Child       int64      `json:"child"`
	By          string     `json:"by" doc:"Who gave it."`
	You         bool       `json:"you"`
	Covers      []string   `json:"covers" nullable:"false" doc:"visits, meals"`
	Form        string     `json:"form" doc:"The number of the application; registry for what the city's registry brought."`
	GivenOn     date       `json:"given_on"`
	Since       time.Time  `json:"since"`
	Until       *time.Time `json:"until,omitempty"`
	WithdrawnAt *time.Time `json:"withdrawn_at,omitempty"`
	Live        bool       `json:"live"`
}

// ApplicationsView are the applications one has signed.
type ApplicationsView struct {
	Applications []ApplicationView `json:"applications" nullable:"false" doc:"The newest first."`
}

// ApplicationView is an application as it was keyed in.
type ApplicationView struct {
	ID         int64              `json:"id"`
	RecordedAt time.Time          `json:"recorded_at"`
	Form       access.Application `json:"form"`
}

func (s routes) consents() {
	show(s, route{
		method: http.MethodGet, path: "/children/{child}/consents", id: "list-consents", summary: "The consents for a child",
	}, func(ctx context.Context, v visitor, in *OfChild) (ConsentsView, error) {
		child, err := s.child(ctx, v, in.Child)
		if err != nil {
			return ConsentsView{}, err
		}
		if err := s.look(ctx, v, "consents", child.ID); err != nil {
			return ConsentsView{}, err
		}
		consents, err := access.Consents(ctx, s.pool, child.ID)
		if err != nil {
			return ConsentsView{}, err
		}
		names, err := s.names(ctx, child.ID)
		return consentsView(v, consents, names), err
	})
	show(s, route{
		method: http.MethodGet, path: "/consents", id: "list-own-consents", summary: "Your own consents",
		text: "Also those that you have withdrawn, after which you see nothing else of the child.",
	}, func(ctx context.Context, v visitor, _ *struct{}) (ConsentsView, error) {
		you := v.session.Representative
		consents, err := access.ConsentsBy(ctx, s.pool, you.ID, v.now)
		return consentsView(v, consents, map[access.RepresentativeID]string{you.ID: fullName(you.Names)}), err
	})
	do(s, route{
		method: http.MethodDelete, path: "/children/{child}/consent", id: "withdraw-consent", summary: "Withdraw your consent",
		text: "All that you have consented to for the child. From now on nobody is told or shown anything that stood on it, " +
			"you included; what was not sent yet is not sent. To begin again, apply anew, here or at the school. Legal representatives only.",
	}, func(ctx context.Context, v visitor, in *OfChild) error {
		child, err := id[ledger.PersonID](in.Child)
		if err != nil {
			return err
		}
		err = s.write(ctx, func(tx pgx.Tx) error {
			if err := access.WithdrawConsent(ctx, tx, v.session.Representative.ID, child, v.now); err != nil {
				return err
			}
			return notice.Silence(ctx, tx, child, v.now)
		})
		if err == nil {
			s.log.InfoContext(ctx, "a consent was withdrawn",
				"representative", int64(v.session.Representative.ID), "child", int64(child))
		}
		return s.orLegal(ctx, v, child, err)
	})
	show(s, route{
		method: http.MethodGet, path: "/applications", id: "list-applications", summary: "Your applications to schools",
	}, func(ctx context.Context, v visitor, _ *struct{}) (ApplicationsView, error) {
		filed, err := access.Applications(ctx, s.pool, v.session.Representative.ID)
		view := ApplicationsView{Applications: make([]ApplicationView, len(filed))}
		for i, f := range filed {
			view.Applications[i] = ApplicationView{int64(f.ID), f.RecordedAt, f.Form}
		}
		return view, err
	})
}

func consentsView(v visitor, consents []access.Consent, names map[access.RepresentativeID]string) ConsentsView {
	view := ConsentsView{Consents: make([]ConsentView, len(consents))}
	for i, c := range consents {
		line := ConsentView{
			ID: int64(c.ID), Child: int64(c.Child), By: names[c.Representative], You: c.Representative == v.session.Representative.ID,
			Covers: []string{}, Form: c.Form, GivenOn: dateOf(c.GivenOn), Since: c.Since, Until: moment(c.Until, time.UTC),
			WithdrawnAt: moment(c.WithdrawnAt, time.UTC), Live: c.Live(v.now),
		}
		if c.Visits {
			line.Covers = append(line.Covers, "visits")
		}
		if c.Meals {
			line.Covers = append(line.Covers, "meals")
		}
		view.Consents[i] = line
	}
	return view
}
