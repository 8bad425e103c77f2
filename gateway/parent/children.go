package parent

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"zvonok/access"
	"zvonok/access/door"
	"zvonok/ledger"
	"zvonok/ledger/money"
	"zvonok/ledger/pg"
)

// Limits of periods.
const (
	usualDays = 7
	mostDays  = 31
)

// date is a day of the school's calendar, like "2026-11-23".
type date string

// Schema describes a date in the document.
func (date) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Format: "date", Examples: []any{"2026-11-23"}}
}

func dateOf(day time.Time) date {
	if day.IsZero() {
		return ""
	}
	return date(day.Format(time.DateOnly))
}

// day reads a date as midnight UTC.
func (d date) day() (time.Time, bool) {
	day, err := time.Parse(time.DateOnly, string(d))
	return day, err == nil && day.Year() >= 2000 && day.Year() < 2200
}

// Period is a stretch of days in a question. Its words are read by bounds.
type Period struct {
	From string `query:"from" maxLength:"10" example:"2026-11-17" doc:"The first day; without it, six days before the last."`
	To   string `query:"to" maxLength:"10" example:"2026-11-23" doc:"The last day; without it, today. At most 31 days at once."`
}

// bounds returns the first and the last day, as midnights UTC.
func (p Period) bounds(now time.Time, zone *time.Location) (from, to time.Time, err error) {
	year, month, day := now.In(zone).Date()
	to = time.Date(year, month, day, 0, 0, 0, 0, time.UTC)
	if p.To != "" {
		var ok bool
		if to, ok = date(p.To).day(); !ok {
			return from, to, &fieldError{"query.to", "must be a date like 2026-11-23"}
		}
	}
	from = to.AddDate(0, 0, 1-usualDays)
	if p.From != "" {
		var ok bool
		if from, ok = date(p.From).day(); !ok {
			return from, to, &fieldError{"query.from", "must be a date like 2026-11-23"}
		}
	}
	if from.After(to) || to.Sub(from) >= mostDays*24*time.Hour {
		return from, to, &fieldError{"query.from", "and to must span 1 to 31 days"}
	}
	return from, to, nil
}

// OfChild names a child in a path.
type OfChild struct {
	Child string `path:"child" maxLength:"32" example:"17" doc:"The id that the list of children gives."`
}

// ChildView is a child as its representative sees it first.
type ChildView struct {
	ID         int64    `json:"id"`
	FamilyName string   `json:"family_name"`
	GivenName  string   `json:"given_name"`
	Patronymic string   `json:"patronymic,omitempty"`
	School     string   `json:"school"`
	Kind       string   `json:"kind" enum:"school,college,kindergarten"`
	Group      string   `json:"group,omitempty" doc:"Class or kindergarten group."`
	Role       string   `json:"role" enum:"legal,trusted" doc:"What you are to the child."`
	Covers     []string `json:"covers" nullable:"false" doc:"What the consent covers: visits, meals."`
	TimeZone   string   `json:"time_zone" example:"Europe/Moscow"`
	Benefit    string   `json:"benefit,omitempty" enum:"none,breakfast,lunch,full" doc:"Which meals the city pays; for legal representatives only."`

	Wallet *WalletView `json:"wallet,omitempty" doc:"Absent when the consent does not cover meals, or there is none."`
	Visit  *VisitView  `json:"last_visit,omitempty" doc:"Absent when the consent does not cover visits, or there was none."`
}

// WalletView is a child's money.
type WalletView struct {
	Account   string       `json:"account" example:"00207316"`
	Balance   money.Amount `json:"balance" example:"143.50"`
	Held      money.Amount `json:"held" example:"0.00" doc:"Set aside for preorders."`
	Available money.Amount `json:"available" example:"143.50"`
	Closed    bool         `json:"closed"`
}

// VisitView is the last day on which a child passed a door.
type VisitView struct {
	Date     date       `json:"date"`
	FirstIn  *time.Time `json:"first_in,omitempty"`
	LastOut  *time.Time `json:"last_out,omitempty"`
	LastPass time.Time  `json:"last_pass"`
	State    string     `json:"state" enum:"inside,away,incomplete" doc:"Incomplete: came, and was not seen leaving before the day was closed."`
}

// ChildrenView is the list of children.
type ChildrenView struct {
	Children []ChildView `json:"children" nullable:"false"`
}

func (s routes) children() {
	show(s, route{
		method: http.MethodGet, path: "/children", id: "list-children", summary: "Your children",
		text: "Those of whom you may know now: you are a legal or a trusted representative, and a consent is live.",
	}, func(ctx context.Context, v visitor, _ *struct{}) (ChildrenView, error) {
		children, err := access.ChildrenOf(ctx, s.pool, v.session.Phone, v.now)
		if err != nil {
			return ChildrenView{}, err
		}
		views, err := s.describe(ctx, v, children)
		return ChildrenView{views}, err
	})
	show(s, route{
		method: http.MethodGet, path: "/children/{child}", id: "show-child", summary: "One child",
	}, func(ctx context.Context, v visitor, in *OfChild) (ChildView, error) {
		child, err := s.child(ctx, v, in.Child)
		if err != nil {
			return ChildView{}, err
		}
		views, err := s.describe(ctx, v, []access.Child{child})
		if err != nil {
			return ChildView{}, err
		}
		return views[0], nil
	})
	show(s, route{
		method: http.MethodGet, path: "/children/{child}/visits", id: "list-visits",
		summary: "Visits, by day",
		text:    "The newest day first. Days without lessons are listed only when the child came.",
	}, s.visits)
}

// describe puts together what is shown of children: a query for each kind of
// fact, whatever their number.
func (s routes) describe(ctx context.Context, v visitor, children []access.Child) ([]ChildView, error) {
	views := make([]ChildView, len(children))
	if len(children) == 0 {
		return views, nil
	}
	ids := make([]ledger.PersonID, len(children))
	organisations := make([]ledger.OrganisationID, len(children))
	for i, c := range children {
		ids[i], organisations[i] = c.ID, c.Organisation
	}
	if err := s.look(ctx, v, "child", ids...); err != nil {
		return nil, err
	}
	people, err := ledger.People(ctx, s.pool, ids)
	if err != nil {
		return nil, err
	}
	schools, err := ledger.Organisations(ctx, s.pool, organisations)
	if err != nil {
		return nil, err
	}
	balances, err := ledger.Balances(ctx, s.pool, ids)
	if err != nil {
		return nil, err
	}
	var visits map[ledger.PersonID]door.Visit
	if err := s.read.Read(ctx, func(ctx context.Context, q pg.Querier) (err error) {
		visits, err = door.LastVisits(ctx, q, ids, v.now)
		return err
	}); err != nil {
		return nil, err
	}
	for i, c := range children {
		school := schools[c.Organisation]
		view := ChildView{
			ID: int64(c.ID), FamilyName: c.FamilyName, GivenName: c.GivenName, Patronymic: c.Patronymic,
			School: school.ShortName, Kind: string(school.Kind), Group: c.Group, Role: string(c.Role), Covers: []string{},
			TimeZone: school.Location.String(),
		}
		if c.Visits {
			view.Covers = append(view.Covers, "visits")
			if visit, ok := visits[c.ID]; ok {
				view.Visit = &VisitView{
					Date: dateOf(visit.Day), FirstIn: moment(visit.FirstIn, visit.Zone), LastOut: moment(visit.LastOut, visit.Zone),
					LastPass: visit.LastAt.In(visit.Zone), State: string(visit.State),
				}
			}
		}
		if c.Meals {
			view.Covers = append(view.Covers, "meals")
			if b, ok := balances[c.ID]; ok {
				view.Wallet = walletView(b)
			}
			if c.Role == access.Legal {
				view.Benefit = string(people[c.ID].Benefit)
			}
		}
		views[i] = view
	}
	return views, nil
}

func walletView(b ledger.Balance) *WalletView {
	return &WalletView{Account: b.Number, Balance: b.Posted, Held: b.Held, Available: b.Available(), Closed: b.Closed}
}

// moment is a time in a zone, nil for none.
func moment(at time.Time, zone *time.Location) *time.Time {
	if at.IsZero() {
		return nil
	}
	at = at.In(zone)
	return &at
}

// VisitsView is a child's days at school.
type VisitsView struct {
	From date      `json:"from"`
	To   date      `json:"to"`
	Days []DayView `json:"days" nullable:"false"`
}

// DayView is one day.
type DayView struct {
	Date    date       `json:"date"`
	Status  string     `json:"status" enum:"present,late,excused,absent"`
	FirstIn *time.Time `json:"first_in,omitempty"`
	LastOut *time.Time `json:"last_out,omitempty"`
	// Incomplete as in VisitView.
	Incomplete  bool       `json:"incomplete,omitempty" doc:"Came, and was not seen leaving before the day was closed."`
	LateMinutes int        `json:"late_minutes,omitempty"`
	Reason      string     `json:"reason,omitempty" doc:"Why an absence is excused."`
	Passes      []PassView `json:"passes" nullable:"false"`
}

// PassView is one passage through a door.
type PassView struct {
	At        time.Time `json:"at"`
	Direction string    `json:"direction" enum:"in,out"`
	Kind      string    `json:"kind" enum:"card,companion,staff" doc:"By the own card, led by a companion, or let in by staff."`
	Companion string    `json:"companion,omitempty" doc:"Who brought or collected the child."`
	Late      bool      `json:"reported_late,omitempty" doc:"The door reported it when it was no longer news."`
}

func (s routes) visits(ctx context.Context, v visitor, in *struct {
	OfChild
	Period
},
) (VisitsView, error) {
	child, err := s.child(ctx, v, in.Child)
	if err != nil {
		return VisitsView{}, err
	}
	if !child.Visits {
		return VisitsView{}, errPurpose
	}
	schools, err := ledger.Organisations(ctx, s.pool, []ledger.OrganisationID{child.Organisation})
	if err != nil {
		return VisitsView{}, err
	}
	school := schools[child.Organisation]
	from, to, err := in.bounds(v.now, school.Location)
	if err != nil {
		return VisitsView{}, err
	}
	if err := s.look(ctx, v, "visits", child.ID); err != nil {
		return VisitsView{}, err
	}
	var attendance door.Attendance
	var history []door.Pass
	if err := s.read.Read(ctx, func(ctx context.Context, q pg.Querier) (err error) {
		if attendance, err = door.ReadAttendance(ctx, q, child.Organisation, "", child.ID, from, to, v.now); err != nil {
			return err
		}
		history, err = door.History(ctx, q, child.ID, midnight(from, school), midnight(to.AddDate(0, 0, 1), school))
		return err
	}); err != nil {
		return VisitsView{}, err
	}
	passes, err := s.passes(ctx, child, school, history)
	if err != nil {
		return VisitsView{}, err
	}
	view := VisitsView{From: dateOf(from), To: dateOf(to), Days: []DayView{}}
	for i := len(attendance.Days) - 1; i >= 0; i-- {
		day := attendance.Days[i]
		line := DayView{
			Date: dateOf(day.Date), Status: string(day.Status), Incomplete: day.Incomplete, Reason: day.Reason,
			FirstIn: moment(day.FirstIn, school.Location), LastOut: moment(day.LastOut, school.Location),
			LateMinutes: int(day.LateBy / time.Minute), Passes: passes[dateOf(day.Date)],
		}
		if line.Passes == nil {
			line.Passes = []PassView{}
		}
		view.Days = append(view.Days, line)
	}
	return view, nil
}

// midnight is when a day begins at a school.
func midnight(day time.Time, school ledger.Organisation) time.Time {
	return time.Date(day.Year(), day.Month(), day.Day(), 0, 0, 0, 0, school.Location)
}

// passes describes a child's passages, by day. What belongs to the same passage
// as the one before it is left out (D8).
func (s routes) passes(ctx context.Context, child access.Child, school ledger.Organisation, history []door.Pass) (
	map[date][]PassView, error,
) {
	companions := map[access.RepresentativeID]string{}
	for _, p := range history {
		if p.Companion != 0 {
			var err error
			if companions, err = s.names(ctx, child.ID); err != nil {
				return nil, err
			}
			break
		}
	}
	days := map[date][]PassView{}
	for _, p := range history {
		if p.Merged {
			continue
		}
		at := p.At.In(school.Location)
		day := dateOf(at)
		days[day] = append(days[day], PassView{
			At: at, Direction: p.Direction.String(), Kind: p.Kind.String(), Companion: companions[p.Companion],
			Late: p.ReceivedAt.Sub(p.At) > school.PassLife,
		})
	}
	return days, nil
}

// names are the names of everybody around a child, as others of its circle see them.
func (s routes) names(ctx context.Context, child ledger.PersonID) (map[access.RepresentativeID]string, error) {
	circle, err := access.Circle(ctx, s.pool, child)
	if err != nil {
		return nil, err
	}
	names := make(map[access.RepresentativeID]string, len(circle))
	for _, m := range circle {
		names[m.Representative] = fullName(m.Names)
	}
	return names, nil
}

func fullName(n access.Names) string {
	name := n.Family + " " + n.Given
	if n.Patronymic != "" {
		name += " " + n.Patronymic
	}
	return name
}
