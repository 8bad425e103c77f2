package parent

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/gateway/notice"
	"zvonok/ledger"
)

// CircleView is who may know of a child, or may lead it.
type CircleView struct {
	Representatives []MemberView `json:"representatives" nullable:"false"`
}

// MemberView is one of them (R61).
type MemberView struct {
	ID    int64      `json:"id"`
	Name  string     `json:"name"`
	Phone string     `json:"phone" example:"+7900***02" doc:"Masked, unless it is your own."`
	Role  string     `json:"role" enum:"legal,trusted,companion" doc:"A companion leads the child and sees nothing."`
	Since time.Time  `json:"since"`
	Until *time.Time `json:"until,omitempty"`
	You   bool       `json:"you"`
}

// LogView is a page of the access log.
type LogView struct {
	Views []LookView `json:"views" nullable:"false" doc:"The newest first."`
	Next  string     `json:"next,omitempty" doc:"For before, to go on; absent at the end."`
}

// LookView is one look at a child's data (D14).
type LookView struct {
	At      time.Time `json:"at"`
	Who     string    `json:"who" enum:"representative,staff,registry,system,partner"`
	Name    string    `json:"name" doc:"Of the person, the bank or the job."`
	You     bool      `json:"you"`
	What    string    `json:"what" example:"visits"`
	Channel string    `json:"channel" example:"api"`
}

// looksAtOnce is how many looks a page has.
const looksAtOnce = 100

func (s routes) circle() {
	show(s, route{
		method: http.MethodGet, path: "/children/{child}/representatives", id: "list-representatives",
		summary: "Who may know of the child", text: "Legal and trusted representatives, and companions, as of now.",
	}, func(ctx context.Context, v visitor, in *OfChild) (CircleView, error) {
		child, err := s.child(ctx, v, in.Child)
		if err != nil {
			return CircleView{}, err
		}
		if err := s.look(ctx, v, "representatives", child.ID); err != nil {
			return CircleView{}, err
		}
		circle, err := access.Circle(ctx, s.pool, child.ID)
		view := CircleView{Representatives: []MemberView{}}
		for _, m := range circle {
			if !m.Live(v.now) {
				continue
			}
			line := MemberView{
				ID: int64(m.Representative), Name: fullName(m.Names), Phone: m.Phone.Masked(), Role: string(m.Role),
				Since: m.Since, Until: moment(m.Until, time.UTC), You: m.Representative == v.session.Representative.ID,
			}
			if line.You {
				line.Phone = m.Phone.E164()
			}
			view.Representatives = append(view.Representatives, line)
		}
		return view, err
	})
	do(s, route{
		method: http.MethodDelete, path: "/children/{child}/representatives/{representative}", id: "exclude-representative",
		summary: "Exclude somebody, at once",
		text: "A legal representative excludes trusted persons and companions; everybody may give up an own right. What was " +
			"not sent yet is not sent.",
	}, func(ctx context.Context, v visitor, in *struct {
		OfChild
		Representative string `path:"representative" maxLength:"32"`
		Role           string `query:"role" enum:"trusted,companion" default:"trusted"`
	},
	) error {
		child, err := id[ledger.PersonID](in.Child)
		if err != nil {
			return err
		}
		whom, err := id[access.RepresentativeID](in.Representative)
		if err != nil {
			return err
		}
		err = s.write(ctx, func(tx pgx.Tx) error {
			by := v.session.Representative.ID
			if err := access.Exclude(ctx, tx, by, child, whom, access.Role(in.Role), v.now); err != nil {
				return err
			}
			return notice.Silence(ctx, tx, child, v.now)
		})
		return s.orLegal(ctx, v, child, err)
	})
	show(s, route{
		method: http.MethodGet, path: "/children/{child}/log", id: "show-log", summary: "Who looked at the child's data",
	}, s.accessLog)
}

// orLegal tells who may see the child that it is the role which is missing;
// everybody else sees nothing.
func (s routes) orLegal(ctx context.Context, v visitor, child ledger.PersonID, err error) error {
	if !errors.Is(err, access.ErrNotAllowed) {
		return err
	}
	if _, seen := access.ChildOf(ctx, s.pool, v.session.Phone, child, v.now); seen != nil {
		return seen
	}
	return errLegal
}

func (s routes) accessLog(ctx context.Context, v visitor, in *struct {
	OfChild
	Before string `query:"before" maxLength:"64" doc:"next of the page before; without it, the newest."`
},
) (LogView, error) {
	child, err := s.child(ctx, v, in.Child)
	if err != nil {
		return LogView{}, err
	}
	page, err := access.ParseViewPage(in.Before)
	if err != nil {
		return LogView{}, &fieldError{"query.before", err.Error()}
	}
	looks, next, err := access.Views(ctx, s.pool, child.ID, page, looksAtOnce)
	if err != nil {
		return LogView{}, err
	}
	names, err := s.lookers(ctx, child.ID, looks)
	if err != nil {
		return LogView{}, err
	}
	you := access.ByRepresentative(v.session.Representative.ID)
	view := LogView{Views: make([]LookView, len(looks)), Next: next.String()}
	for i, l := range looks {
		view.Views[i] = LookView{
			At: l.At, Who: string(l.Who.Kind), Name: names[l.Who], You: l.Who == you, What: l.What, Channel: string(l.Channel),
		}
	}
	return view, nil
}

// lookers are the names of those who looked: representatives by the child's
// circle, staff by the register, others by what they are called.
func (s routes) lookers(ctx context.Context, child ledger.PersonID, looks []access.View) (map[access.Actor]string, error) {
	names := map[access.Actor]string{}
	var staff []string
	family := false
	for _, l := range looks {
		names[l.Who] = l.Who.ID
		switch l.Who.Kind {
		case access.StaffActor:
			staff = append(staff, l.Who.ID)
		case access.RepresentativeActor:
			names[l.Who], family = "", true
		}
	}
	if family {
		circle, err := s.names(ctx, child)
		if err != nil {
			return nil, err
		}
		for who, name := range circle {
			names[access.ByRepresentative(who)] = name
		}
	}
	if len(staff) == 0 {
		return names, nil
	}
	codes, err := ledger.PeopleByCode(ctx, s.pool, staff)
	if err != nil {
		return nil, err
	}
	ids := make([]ledger.PersonID, 0, len(codes))
	for _, person := range codes {
		ids = append(ids, person)
	}
	people, err := ledger.People(ctx, s.pool, ids)
	if err != nil {
		return nil, err
	}
	for code, person := range codes {
		p := people[person]
		names[access.ByStaff(code)] = fullName(access.Names{Family: p.FamilyName, Given: p.GivenName, Patronymic: p.Patronymic})
	}
	return names, nil
}
