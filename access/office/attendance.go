package office

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/access/door"
	"zvonok/ledger"
)

// file is an answer in one of several forms.
type file struct {
	ContentType string `header:"Content-Type"`
	Disposition string `header:"Content-Disposition"`
	Policy      string `header:"Content-Security-Policy"`
	Body        []byte
}

// The forms of lists.
const (
	csvForm  = "text/csv; charset=utf-8"
	xlsxForm = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
)

// channelOf says how data in a form leaves: a file is an export.
func channelOf(format string) access.Channel {
	if format == "csv" || format == "xlsx" {
		return access.Export
	}
	return access.Staff
}

// write puts a list into a form; document is what JSON shows.
func write(format string, document any, sheet door.Sheet) (*file, error) {
	var b bytes.Buffer
	f := &file{}
	switch format {
	case "csv":
		f.ContentType, f.Disposition = csvForm, `attachment; filename="`+sheet.Name+`.csv"`
		if err := sheet.WriteCSV(&b); err != nil {
			return nil, err
		}
	case "xlsx":
		f.ContentType, f.Disposition = xlsxForm, `attachment; filename="`+sheet.Name+`.xlsx"`
		if err := sheet.WriteXLSX(&b); err != nil {
			return nil, err
		}
	default:
		f.ContentType = "application/json"
		if err := json.NewEncoder(&b).Encode(document); err != nil {
			return nil, fmt.Errorf("write %s: %w", sheet.Name, err)
		}
	}
	f.Body = b.Bytes()
	return f, nil
}

// forms describes the answers of a list.
func (r registrar) forms(document reflect.Type, more ...string) map[string]*huma.Response {
	content := map[string]*huma.MediaType{
		"application/json": {Schema: r.api.OpenAPI().Components.Schemas.Schema(document, true, "")},
	}
	for _, form := range append([]string{"text/csv", xlsxForm}, more...) {
		content[form] = &huma.MediaType{Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}
	}
	return map[string]*huma.Response{"200": {Description: "The list in the form asked for.", Content: content}}
}

// Presence is who is inside now.
type Presence struct {
	At        time.Time      `json:"at"`
	Buildings []HeadCount    `json:"buildings" nullable:"false"`
	People    []door.Present `json:"people" nullable:"false"`
}

// HeadCount is how many are in one building.
type HeadCount struct {
	Building string `json:"building"`
	Address  string `json:"address"`
	Pupils   int    `json:"pupils"`
	Staff    int    `json:"staff"`
}

// CountHeads counts a list of presence by building, in its order.
func CountHeads(people []door.Present) []HeadCount {
	counts := []HeadCount{}
	for _, p := range people {
		if n := len(counts); n == 0 || counts[n-1].Building != p.Building {
			counts = append(counts, HeadCount{Building: p.Building, Address: p.Address})
		}
		if c := &counts[len(counts)-1]; p.Kind == ledger.Pupil {
			c.Pupils++
		} else {
			c.Staff++
		}
	}
	return counts
}

// AttendanceList is the attendance of people over some days.
type AttendanceList struct {
	From    string          `json:"from" format:"date"`
	To      string          `json:"to" format:"date"`
	Members []door.Member   `json:"members" nullable:"false"`
	Days    []AttendanceDay `json:"days" nullable:"false"`
}

// AttendanceDay is one person's day.
type AttendanceDay struct {
	Date       string      `json:"date" format:"date"`
	Person     string      `json:"person"`
	Status     door.Status `json:"status" enum:"present,late,excused,absent"`
	FirstIn    time.Time   `json:"first_in,omitzero"`
	LastOut    time.Time   `json:"last_out,omitzero"`
	Late       int         `json:"late_minutes,omitempty"`
	Incomplete bool        `json:"incomplete,omitempty" doc:"Came and was not seen leaving until the day was closed."`
	Reason     string      `json:"reason,omitempty" doc:"Why an absence is excused."`
}

// GroupList is the attendance of groups over some days.
type GroupList struct {
	Groups []GroupDay `json:"groups" nullable:"false"`
}

// GroupDay counts a group's day.
type GroupDay struct {
	Date       string            `json:"date" format:"date"`
	Kind       ledger.PersonKind `json:"kind"`
	Group      string            `json:"group"`
	Listed     int               `json:"listed"`
	Present    int               `json:"present" doc:"In time or late."`
	Late       int               `json:"late"`
	Excused    int               `json:"excused"`
	Missing    int               `json:"missing"`
	Incomplete int               `json:"incomplete"`
}

// ListAttendance puts attendance into the form of the interface.
func ListAttendance(a door.Attendance) AttendanceList {
	codes := make(map[ledger.PersonID]string, len(a.Members))
	for _, m := range a.Members {
		codes[m.Person] = m.Code
	}
	list := AttendanceList{
		From: a.From.Format(time.DateOnly), To: a.To.Format(time.DateOnly), Members: a.Members,
		Days: make([]AttendanceDay, len(a.Days)),
	}
	if list.Members == nil {
		list.Members = []door.Member{}
	}
	for i, d := range a.Days {
		list.Days[i] = AttendanceDay{
			Date: d.Date.Format(time.DateOnly), Person: codes[d.Person], Status: d.Status, FirstIn: d.FirstIn,
			LastOut: d.LastOut, Late: d.LateMinutes(), Incomplete: d.Incomplete, Reason: d.Reason,
		}
	}
	return list
}

// ListGroups puts the attendance of groups into the form of the interface.
func ListGroups(a door.Attendance) GroupList {
	list := GroupList{Groups: []GroupDay{}}
	for _, g := range a.ByGroup() {
		list.Groups = append(list.Groups, GroupDay{
			Date: g.Date.Format(time.DateOnly), Kind: g.Kind, Group: g.Group, Listed: g.Listed, Present: g.Present,
			Late: g.Late, Excused: g.Excused, Missing: g.Missing, Incomplete: g.Incomplete,
		})
	}
	return list
}

// Excuse is why somebody does not come.
type Excuse struct {
	ID       int64  `json:"id,omitempty" readOnly:"true"`
	Person   string `json:"person" maxLength:"64" example:"p-17"`
	FirstDay string `json:"first_day" format:"date" example:"2026-11-23"`
	LastDay  string `json:"last_day" format:"date" doc:"The last day counts." example:"2026-11-25"`
	Reason   string `json:"reason" maxLength:"200" example:"болезнь"`
	By       string `json:"by,omitempty" readOnly:"true" example:"staff:staff-3"`
}

// Lesson is when a group's day begins.
type Lesson struct {
	Group   string `json:"group,omitempty" maxLength:"64" doc:"Without it: every group that has no lessons of its own."`
	Weekday int    `json:"weekday" minimum:"1" maximum:"7" doc:"1 is Monday, 7 is Sunday (ISO 8601)."`
	Begins  string `json:"begins" pattern:"^([01][0-9]|2[0-3]):[0-5][0-9]$" example:"08:30"`
}

// Timetable is when the groups' days begin, and the days without lessons.
type Timetable struct {
	Lessons  []Lesson `json:"lessons" nullable:"false" maxItems:"5000"`
	Holidays []string `json:"holidays,omitempty" readOnly:"true" nullable:"false" doc:"From today on."`
}

func (r registrar) attendance() {
	route(r, huma.Operation{
		OperationID: "staff-presence", Method: http.MethodGet, Path: "/api/v1/staff/presence",
		Summary: "Who is in the building now: the evacuation list",
		Description: "By building, group and name; html is a page to be printed, with boxes to tick. Who came and was not " +
			"seen leaving is on it until the day is closed.",
		Responses: r.forms(reflect.TypeFor[Presence](), "text/html"),
	}, func(ctx context.Context, v visit, input *struct {
		Building string `query:"building" doc:"Only this one: the registry's id."`
		Format   string `query:"format" enum:"json,csv,xlsx,html" default:"json"`
	},
	) (*file, error) {
		people, err := door.WhoIsInside(ctx, r.office.Pool, v.organisation(), v.now)
		if err != nil {
			return nil, err
		}
		if input.Building != "" {
			people = slices.DeleteFunc(people, func(p door.Present) bool { return p.Building != input.Building })
		}
		var children []ledger.PersonID
		for _, p := range people {
			if p.Kind == ledger.Pupil {
				children = append(children, p.Person)
			}
		}
		if err := v.lookAt(ctx, r.office.Pool, "presence", channelOf(input.Format), children); err != nil {
			return nil, err
		}
		if people == nil {
			people = []door.Present{}
		}
		if input.Format == "html" {
			zone, err := r.office.zone(ctx, v)
			if err != nil {
				return nil, err
			}
			var b bytes.Buffer
			if err := WriteEvacuationList(&b, people, v.now.In(zone)); err != nil {
				return nil, err
			}
			return &file{ContentType: "text/html; charset=utf-8", Policy: evacuationPolicy, Body: b.Bytes()}, nil
		}
		return write(input.Format, Presence{v.now, CountHeads(people), people}, door.PresenceSheet(people))
	})
	type period struct {
		From   string `query:"from" required:"true" format:"date" doc:"The first day."`
		To     string `query:"to" format:"date" doc:"The last day; without it the first one. At most 367 days."`
		Group  string `query:"group" doc:"Only this class or kindergarten group."`
		Person string `query:"person" doc:"Only this person: the registry's id."`
		Format string `query:"format" enum:"json,csv,xlsx" default:"json"`
	}
	route(r, huma.Operation{
		OperationID: "staff-attendance", Method: http.MethodGet, Path: "/api/v1/staff/attendance",
		Summary: "Who came, who was late, who did not come, and why", Errors: []int{404},
		Description: "Pupils and staff: the first entry and the last exit of each day, lateness against the timetable, " +
			"absences with their reasons.",
		Responses: r.forms(reflect.TypeFor[AttendanceList]()),
	}, func(ctx context.Context, v visit, input *period) (*file, error) {
		a, err := r.office.readAttendance(ctx, v, input.From, input.To, input.Group, input.Person, "attendance", input.Format)
		if err != nil {
			return nil, err
		}
		return write(input.Format, ListAttendance(a), a.Sheet())
	})
	route(r, huma.Operation{
		OperationID: "staff-group-attendance", Method: http.MethodGet, Path: "/api/v1/staff/attendance/groups",
		Summary: "How many of each group came", Responses: r.forms(reflect.TypeFor[GroupList]()),
	}, func(ctx context.Context, v visit, input *struct {
		From   string `query:"from" required:"true" format:"date"`
		To     string `query:"to" format:"date"`
		Format string `query:"format" enum:"json,csv,xlsx" default:"json"`
	},
	) (*file, error) {
		// Numbers name no child: nobody is looked at.
		a, err := r.office.readAttendance(ctx, v, input.From, input.To, "", "", "", input.Format)
		if err != nil {
			return nil, err
		}
		return write(input.Format, ListGroups(a), a.GroupSheet())
	})
	r.excuses()
	r.timetable()
}

func (o *Office) zone(ctx context.Context, v visit) (*time.Location, error) {
	found, err := ledger.Organisations(ctx, o.Pool, []ledger.OrganisationID{v.organisation()})
	if err != nil {
		return nil, err
	}
	return found[v.organisation()].Location, nil
}

// readAttendance reads attendance and, where what is named, logs the look.
func (o *Office) readAttendance(ctx context.Context, v visit, from, to, group, person, what, format string) (door.Attendance, error) {
	first, last, err := days(from, to)
	if err != nil {
		return door.Attendance{}, err
	}
	var one ledger.PersonID
	if person != "" {
		p, err := personByCode(ctx, o.Pool, v.organisation(), person)
		if err != nil {
			return door.Attendance{}, err
		}
		one = p.ID
	}
	a, err := door.ReadAttendance(ctx, o.Pool, v.organisation(), group, one, first, last, v.now)
	if err != nil || what == "" {
		return a, err
	}
	var children []ledger.PersonID
	for _, m := range a.Members {
		if m.Kind == ledger.Pupil {
			children = append(children, m.Person)
		}
	}
	return a, v.lookAt(ctx, o.Pool, what, channelOf(format), children)
}

// days reads a period; without a last day it is the first one.
func days(from, to string) (first, last time.Time, err error) {
	first, err = day("from", from)
	if err != nil {
		return first, last, err
	}
	last = first
	if to != "" {
		if last, err = day("to", to); err != nil {
			return first, last, err
		}
	}
	if last.Before(first) || last.Sub(first) > 366*24*time.Hour {
		return first, last, huma.Error422UnprocessableEntity("from, to: want 1 to 367 days in their order.")
	}
	return first, last, nil
}

func day(name, text string) (time.Time, error) {
	date, err := time.Parse(time.DateOnly, text)
	if err != nil {
		return time.Time{}, huma.Error422UnprocessableEntity(name + ": want a day such as 2026-11-23.")
	}
	return date, nil
}

func (r registrar) excuses() {
	type excusesBody struct {
		Body struct {
			Excuses []Excuse `json:"excuses" nullable:"false"`
		}
	}
	route(r, huma.Operation{
		OperationID: "staff-excuses", Method: http.MethodGet, Path: "/api/v1/staff/excuses",
		Summary: "Who is excused on some days", Errors: []int{404},
	}, func(ctx context.Context, v visit, input *struct {
		From   string `query:"from" required:"true" format:"date"`
		To     string `query:"to" format:"date"`
		Person string `query:"person"`
	},
	) (*excusesBody, error) {
		first, last, err := days(input.From, input.To)
		if err != nil {
			return nil, err
		}
		var one ledger.PersonID
		if input.Person != "" {
			p, err := personByCode(ctx, r.office.Pool, v.organisation(), input.Person)
			if err != nil {
				return nil, err
			}
			one = p.ID
		}
		found, err := door.Excuses(ctx, r.office.Pool, v.organisation(), one, first, last)
		if err != nil {
			return nil, err
		}
		var ids []ledger.PersonID
		for _, e := range found {
			ids = append(ids, e.Person)
		}
		people, err := ledger.People(ctx, r.office.Pool, ids)
		if err != nil {
			return nil, err
		}
		var seen []ledger.Person
		for _, p := range people {
			seen = append(seen, p)
		}
		if err := v.look(ctx, r.office.Pool, "excuses", access.Staff, seen...); err != nil {
			return nil, err
		}
		output := &excusesBody{}
		output.Body.Excuses = []Excuse{}
		for _, e := range found {
			output.Body.Excuses = append(output.Body.Excuses, Excuse{
				ID: e.ID, Person: people[e.Person].Code, FirstDay: e.FirstDay.Format(time.DateOnly),
				LastDay: e.LastDay.Format(time.DateOnly), Reason: e.Reason, By: e.Actor,
			})
		}
		return output, nil
	})
	route(r, huma.Operation{
		OperationID: "staff-excuse", Method: http.MethodPost, Path: "/api/v1/staff/excuses", DefaultStatus: http.StatusCreated,
		Summary: "Note why somebody does not come", Errors: []int{404},
	}, func(ctx context.Context, v visit, input *struct{ Body Excuse }) (*struct{ Body Excuse }, error) {
		e := input.Body
		first, last, err := days(e.FirstDay, e.LastDay)
		if err != nil {
			return nil, err
		}
		person, err := personByCode(ctx, r.office.Pool, v.organisation(), e.Person)
		if err != nil {
			return nil, err
		}
		e.By = v.by().String()
		e.ID, err = door.AddExcuse(ctx, r.office.Pool, door.Excuse{
			Person: person.ID, FirstDay: first, LastDay: last, Reason: e.Reason, By: v.by(),
		}, v.now)
		return &struct{ Body Excuse }{e}, err
	})
	route(r, huma.Operation{
		OperationID: "staff-withdraw-excuse", Method: http.MethodDelete, Path: "/api/v1/staff/excuses/{id}",
		Summary: "Take an excuse back", Errors: []int{404},
	}, func(ctx context.Context, v visit, input *struct {
		ID int64 `path:"id"`
	},
	) (*struct{}, error) {
		return nil, door.WithdrawExcuse(ctx, r.office.Pool, v.organisation(), input.ID, v.now)
	})
}

func (r registrar) timetable() {
	type timetableBody struct{ Body Timetable }
	read := func(ctx context.Context, v visit, _ *struct{}) (*timetableBody, error) {
		lessons, err := door.Timetable(ctx, r.office.Pool, v.organisation())
		if err != nil {
			return nil, err
		}
		year, month, today := v.now.Date()
		holidays, err := door.Holidays(ctx, r.office.Pool, v.organisation(), time.Date(year, month, today-1, 0, 0, 0, 0, time.UTC))
		if err != nil {
			return nil, err
		}
		output := &timetableBody{Timetable{Lessons: []Lesson{}, Holidays: []string{}}}
		for _, l := range lessons {
			output.Body.Lessons = append(output.Body.Lessons, Lesson{
				Group: l.Group, Weekday: (int(l.Weekday)+6)%7 + 1,
				Begins: time.Time{}.Add(time.Duration(l.Begins)).Format("15:04"),
			})
		}
		for _, h := range holidays {
			output.Body.Holidays = append(output.Body.Holidays, h.Format(time.DateOnly))
		}
		return output, nil
	}
	route(r, huma.Operation{
		OperationID: "staff-timetable", Method: http.MethodGet, Path: "/api/v1/staff/timetable",
		Summary: "When the groups' days begin",
	}, read)
	route(r, huma.Operation{
		OperationID: "staff-set-timetable", Method: http.MethodPut, Path: "/api/v1/staff/timetable",
		Summary:     "Set when the groups' days begin",
		Description: "It replaces the whole timetable. Without one nobody is late and nobody is missed.",
	}, func(ctx context.Context, v visit, input *struct{ Body Timetable }) (*timetableBody, error) {
		lessons := make([]door.Lesson, len(input.Body.Lessons))
		seen := map[Lesson]bool{}
		for i, l := range input.Body.Lessons {
			begins, err := time.Parse("15:04", l.Begins)
			if err != nil {
				return nil, huma.Error422UnprocessableEntity("begins: want a time of day such as 08:30.")
			}
			lessons[i] = door.Lesson{
				Group: l.Group, Weekday: time.Weekday(l.Weekday % 7),
				Begins: ledger.ClockTime(time.Duration(begins.Hour())*time.Hour + time.Duration(begins.Minute())*time.Minute),
			}
			key := Lesson{Group: l.Group, Weekday: l.Weekday}
			if seen[key] {
				return nil, huma.Error422UnprocessableEntity(fmt.Sprintf("lessons: group %q has two beginnings on weekday %d.", l.Group, l.Weekday))
			}
			seen[key] = true
		}
		if err := r.office.change(ctx, func(tx pgx.Tx) error {
			return door.SetTimetable(ctx, tx, v.organisation(), lessons)
		}); err != nil {
			return nil, err
		}
		return read(ctx, v, nil)
	})
	for method, holiday := range map[string]bool{http.MethodPut: true, http.MethodDelete: false} {
		op := huma.Operation{
			OperationID: "staff-holiday", Method: method, Path: "/api/v1/staff/holidays/{day}", Summary: "Make a day one without lessons",
		}
		if !holiday {
			op.OperationID, op.Summary = "staff-no-holiday", "Make a day one with lessons again"
		}
		route(r, op, func(ctx context.Context, v visit, input *struct {
			Day string `path:"day" format:"date"`
		},
		) (*struct{}, error) {
			date, err := day("day", input.Day)
			if err != nil {
				return nil, err
			}
			return nil, door.SetHoliday(ctx, r.office.Pool, v.organisation(), date, holiday)
		})
	}
}
