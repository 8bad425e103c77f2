package parent

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/access/phone"
	"zvonok/gateway/carrier"
	"zvonok/gateway/delivery"
	"zvonok/gateway/subscription"
	"zvonok/ledger"
	"zvonok/templates"
)

// inviteLife is for how long an SMS about an invitation is worth sending.
const inviteLife = 24 * time.Hour

// InvitationWish invites a trusted person (R59).
type InvitationWish struct {
	Children   []int64    `json:"children" nullable:"false" minItems:"1" maxItems:"20" doc:"Of whom the person is to know."`
	Phone      string     `json:"phone" maxLength:"64" example:"+79000000002"`
	FamilyName string     `json:"family_name" minLength:"1" maxLength:"100" doc:"The person's surname, which must match on acceptance."`
	GivenName  string     `json:"given_name,omitempty" maxLength:"100" doc:"Must match too, when it is given."`
	Until      *time.Time `json:"until,omitempty" doc:"When the right ends; without it, when you end it."`
}

// CheckView is the screen on which a parent checks what is to be sent (R60).
type CheckView struct {
	Service    string     `json:"service"`
	Phone      string     `json:"phone" example:"+79000000002"`
	FamilyName string     `json:"family_name"`
	GivenName  string     `json:"given_name,omitempty"`
	Children   []string   `json:"children" nullable:"false" doc:"Their full names."`
	Until      *time.Time `json:"until,omitempty"`
	ExpiresAt  time.Time  `json:"expires_at" doc:"Until when it could be accepted."`
}

// InvitationView is an invitation as its inviter sees it.
type InvitationView struct {
	ID         int64      `json:"id"`
	Phone      string     `json:"phone"`
	FamilyName string     `json:"family_name"`
	GivenName  string     `json:"given_name,omitempty"`
	Children   []int64    `json:"children" nullable:"false"`
	Until      *time.Time `json:"until,omitempty"`
	State      string     `json:"state" enum:"pending,accepted,declined,cancelled,refused,expired"`
	CreatedAt  time.Time  `json:"created_at"`
	ExpiresAt  time.Time  `json:"expires_at"`
}

// InvitedView is an invitation as the invited person sees it: no child's name,
// since the number may be mistyped.
type InvitedView struct {
	ID        int64     `json:"id"`
	Inviter   string    `json:"inviter"`
	Children  int       `json:"children" doc:"How many."`
	ExpiresAt time.Time `json:"expires_at"`
}

// InvitationsView are those one has made in the last 30 days, and those that wait for one.
type InvitationsView struct {
	Made    []InvitationView `json:"made" nullable:"false"`
	Waiting []InvitedView    `json:"waiting" nullable:"false"`
}

// AcceptanceWish accepts an invitation.
type AcceptanceWish struct {
	FamilyName string `json:"family_name" maxLength:"100"`
	GivenName  string `json:"given_name" maxLength:"100"`
	Patronymic string `json:"patronymic,omitempty" maxLength:"100"`
}

// AcceptanceView is the answer to it.
type AcceptanceView struct {
	Children []int64 `json:"children" nullable:"false" doc:"Of whom you may know from now on."`
}

type OfInvitation struct {
	Invitation string `path:"invitation" maxLength:"32"`
}

func (s routes) invitations() {
	show(s, route{
		method: http.MethodGet, path: "/invitations", id: "list-invitations", summary: "Invitations, made and received",
	}, func(ctx context.Context, v visitor, _ *struct{}) (InvitationsView, error) {
		view := InvitationsView{Made: []InvitationView{}, Waiting: []InvitedView{}}
		made, err := access.Invitations(ctx, s.pool, v.session.Representative.ID, v.now)
		if err != nil {
			return view, err
		}
		for _, i := range made {
			view.Made = append(view.Made, invitationView(i, v.now))
		}
		waiting, err := access.InvitationsTo(ctx, s.pool, v.session.Phone, v.now)
		for _, i := range waiting {
			view.Waiting = append(view.Waiting, InvitedView{
				int64(i.ID), strings.TrimSpace(i.InviterGiven + " " + i.InviterFamily), i.Children, i.ExpiresAt,
			})
		}
		return view, err
	})
	show(s, route{
		method: http.MethodPost, path: "/invitations/check", id: "check-invitation", summary: "See an invitation before sending it",
		text: "Nothing is stored and nobody is told. Legal representatives only.",
	}, func(ctx context.Context, v visitor, in *struct{ Body InvitationWish }) (CheckView, error) {
		proposal, err := s.proposal(v, in.Body)
		if err != nil {
			return CheckView{}, err
		}
		if proposal, err = access.CheckProposal(ctx, s.pool, proposal, v.now); err != nil {
			return CheckView{}, err
		}
		people, err := ledger.People(ctx, s.pool, proposal.Children)
		view := CheckView{
			Service: templates.ServiceName(templates.Language(v.session.Representative.Language)), Phone: proposal.Phone.E164(),
			FamilyName: proposal.FamilyName, GivenName: proposal.GivenName, Children: []string{},
			Until: in.Body.Until, ExpiresAt: v.now.Add(access.InvitationLife),
		}
		for _, child := range proposal.Children {
			p := people[child]
			view.Children = append(view.Children,
				fullName(access.Names{Family: p.FamilyName, Given: p.GivenName, Patronymic: p.Patronymic}))
		}
		return view, err
	})
	show(s, route{
		method: http.MethodPost, path: "/invitations", id: "invite", status: http.StatusCreated, summary: "Invite a trusted person",
		text: "By phone and surname. The answer is the same whether or not anybody has the phone. Ten a day; good for seven " +
			"days. Legal representatives only: for others there are no such children.",
	}, s.invite)
	do(s, route{
		method: http.MethodDelete, path: "/invitations/{invitation}", id: "cancel-invitation", summary: "Take an own invitation back",
	}, func(ctx context.Context, v visitor, in *OfInvitation) error {
		invitation, err := id[access.InvitationID](in.Invitation)
		if err != nil {
			return err
		}
		return s.write(ctx, func(tx pgx.Tx) error {
			return access.Cancel(ctx, tx, invitation, v.session.Representative.ID, v.now)
		})
	})
	show(s, route{
		method: http.MethodPost, path: "/invitations/{invitation}/acceptance", id: "accept-invitation", summary: "Accept an invitation",
		text: "Your names must be those that the parent has written, and those by which you are known here, if you are. " +
			"After five mistakes the invitation is void. Access opens at once.",
	}, s.accept)
	do(s, route{
		method: http.MethodPost, path: "/invitations/{invitation}/refusal", id: "refuse-invitation", summary: "Refuse an invitation",
	}, func(ctx context.Context, v visitor, in *OfInvitation) error {
		invitation, err := id[access.InvitationID](in.Invitation)
		if err != nil {
			return err
		}
		return s.write(ctx, func(tx pgx.Tx) error { return access.Decline(ctx, tx, invitation, v.session.Phone, v.now) })
	})
}

func invitationView(i access.Invitation, now time.Time) InvitationView {
	view := InvitationView{
		ID: int64(i.ID), Phone: i.Phone.E164(), FamilyName: i.FamilyName, GivenName: i.GivenName, Children: []int64{},
		Until: moment(i.Until, time.UTC), State: i.State, CreatedAt: i.CreatedAt, ExpiresAt: i.ExpiresAt,
	}
	if i.State == "pending" && !now.Before(i.ExpiresAt) {
		view.State = "expired"
	}
	for _, child := range i.Children {
		view.Children = append(view.Children, int64(child))
	}
	return view
}

func (s routes) proposal(v visitor, wish InvitationWish) (access.Proposal, error) {
	number, err := phone.Parse(wish.Phone, region)
	if err != nil {
		return access.Proposal{}, err
	}
	p := access.Proposal{
		Inviter: v.session.Representative.ID, Phone: number, FamilyName: wish.FamilyName, GivenName: wish.GivenName,
	}
	for _, child := range wish.Children {
		p.Children = append(p.Children, ledger.PersonID(child))
	}
	if wish.Until != nil {
		if !wish.Until.After(v.now) {
			return p, wrong("until", "is past")
		}
		p.Until = *wish.Until
	}
	return p, nil
}

// invite stores the invitation and queues the SMS that tells of it (R62), whoever
// has the phone.
func (s routes) invite(ctx context.Context, v visitor, in *struct{ Body InvitationWish }) (InvitationView, error) {
	proposal, err := s.proposal(v, in.Body)
	if err != nil {
		return InvitationView{}, err
	}
	var invitation access.Invitation
	err = s.write(ctx, func(tx pgx.Tx) error {
		if invitation, err = access.Invite(ctx, tx, proposal, v.now); err != nil {
			return err
		}
		if invitation.Repeated {
			return nil // it has had its SMS
		}
		return s.tellInvited(ctx, tx, v, invitation)
	})
	if err != nil {
		return InvitationView{}, err
	}
	s.log.InfoContext(ctx, "invited", "representative", int64(proposal.Inviter), "invitation", int64(invitation.ID))
	return invitationView(invitation, v.now), nil
}

func (s routes) tellInvited(ctx context.Context, tx pgx.Tx, v visitor, i access.Invitation) error {
	health, err := delivery.HealthOf(ctx, tx, subscription.SMS, []string{string(i.Phone)})
	if err != nil || health[string(i.Phone)].OptedOut {
		return err
	}
	style := templates.Style{Language: templates.RU, Texts: s.texts()}
	invited, err := access.RepresentativeByPhone(ctx, tx, i.Phone)
	switch {
	case err == nil:
		style.Language, style.Latin = templates.Language(invited.Language), invited.Translit
	case !errors.Is(err, access.ErrNoRepresentative):
		return err
	}
	inviter := v.session.Representative.Names
	text := templates.Invitation{
		Inviter: templates.Name{Given: inviter.Given, Family: inviter.Family}, Until: i.ExpiresAt,
	}.SMS(style)
	_, err = s.desk.Enqueue(ctx, tx, v.now, []delivery.Draft{{
		Representative: invited.ID, Topic: inviteTopic, Channel: subscription.SMS, Address: string(i.Phone),
		Priority: carrier.Normal, Again: delivery.Later, Expires: v.now.Add(inviteLife), Body: text,
	}})
	return err
}

// accept accepts; the newcomer gets the wishes everybody begins with.
func (s routes) accept(ctx context.Context, v visitor, in *struct {
	OfInvitation
	Body AcceptanceWish
},
) (AcceptanceView, error) {
	invitation, err := id[access.InvitationID](in.Invitation)
	if err != nil {
		return AcceptanceView{}, err
	}
	view := AcceptanceView{Children: []int64{}}
	err = s.writeKept(ctx, func(tx pgx.Tx) error {
		names := access.Names{Family: in.Body.FamilyName, Given: in.Body.GivenName, Patronymic: in.Body.Patronymic}
		acceptance, err := access.Accept(ctx, tx, invitation, v.session.Phone, names, v.now)
		if err != nil {
			return err
		}
		switch acceptance.Outcome {
		case access.NamesDiffer:
			return errKept{wrong("family_name", "and given_name do not match the invitation")}
		case access.NotInvited, access.Lapsed:
			return errKept{errNothing}
		}
		var newcomers []subscription.Newcomer
		for _, child := range acceptance.Children {
			view.Children = append(view.Children, int64(child))
			newcomers = append(newcomers, subscription.Newcomer{Child: child, Representative: acceptance.Representative})
		}
		s.log.InfoContext(ctx, "accepted", "representative", int64(acceptance.Representative), "invitation", int64(invitation))
		return subscription.Welcome(ctx, tx, newcomers)
	})
	return view, err
}
