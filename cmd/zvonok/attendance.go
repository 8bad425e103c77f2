package main

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/access/door"
	schooldesk "zvonok/access/office"
	"zvonok/access/reader"
	"zvonok/ledger"
)

// listed is how a list is printed.
type listed struct {
	Format string `default:"table" enum:"table,json,csv,xlsx,html" help:"${enum}; html is of presence only, a page to be printed."`
	Output string `help:"Write it to this file." placeholder:"FILE"`
	JSON   bool   `name:"json" help:"Print JSON."`
}

// format is the form asked for.
func (l listed) format() string {
	if l.JSON {
		return "json"
	}
	return l.Format
}

// print writes a list in the form asked for; document is what JSON shows.
func (l listed) print(c *console, document any, sheet door.Sheet, page func(io.Writer) error) (err error) {
	out := c.out
	if l.Output != "" {
		file, opening := os.OpenFile(l.Output, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600) // it names children
		if opening != nil {
			return fmt.Errorf("--output: %w", opening)
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		out = file
	}
	switch l.format() {
	case "json":
		return printJSON(out, document)
	case "csv":
		return sheet.WriteCSV(out)
	case "xlsx":
		return sheet.WriteXLSX(out)
	case "html":
		if page == nil {
			return usageError{errors.New("--format: html is of presence only")}
		}
		return page(out)
	}
	header := make([]any, len(sheet.Columns))
	for i, column := range sheet.Columns {
		header[i] = strings.ToUpper(column)
	}
	var rows [][]any
	for cells := range sheet.Rows {
		row := make([]any, len(cells))
		for i, cell := range cells {
			row[i] = cell
		}
		rows = append(rows, row)
	}
	return table(out, header, rows)
}

// look writes into the access log that somebody at the command line looks at children.
func look(ctx context.Context, d *database, by access.Actor, what string, children []ledger.PersonID) error {
	views := make([]access.View, len(children))
	for i, child := range children {
		views[i] = access.View{Who: by, Child: child, What: what, Channel: access.Export, At: time.Now()}
	}
	return access.LogView(ctx, d.pool, views)
}

type presenceCommand struct {
	signed
	Org      string `arg:"" help:"The organisation (org_id of the registry)."`
	Building string `help:"Only this building (building_id of the registry)." placeholder:"BUILDING"`
	listed   `embed:""`
}

func (p *presenceCommand) Run(ctx context.Context, c *console) error {
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		organisation, err := organisationByCode(ctx, d.pool, p.Org)
		if err != nil {
			return err
		}
		settings, err := ledger.Organisations(ctx, d.pool, []ledger.OrganisationID{organisation})
		if err != nil {
			return err
		}
		now := time.Now().In(settings[organisation].Location)
		people, err := door.WhoIsInside(ctx, d.pool, organisation, now)
		if err != nil {
			return err
		}
		if p.Building != "" {
			people = slices.DeleteFunc(people, func(o door.Present) bool { return o.Building != p.Building })
		}
		var children []ledger.PersonID
		for _, o := range people {
			if o.Kind == ledger.Pupil {
				children = append(children, o.Person)
			}
		}
		if err := look(ctx, d, p.actor(), "presence", children); err != nil {
			return err
		}
		document := schooldesk.Presence{At: now, Buildings: schooldesk.CountHeads(people), People: append([]door.Present{}, people...)}
		return p.print(c, document, door.PresenceSheet(people),
			func(w io.Writer) error { return schooldesk.WriteEvacuationList(w, people, now) })
	})
}

type attendanceCommand struct {
	signed
	Org     string `arg:"" help:"The organisation (org_id of the registry)."`
	From    string `required:"" help:"The first day." placeholder:"YYYY-MM-DD"`
	To      string `help:"The last day; without it the first one." placeholder:"YYYY-MM-DD"`
	Group   string `help:"Only this class or kindergarten group."`
	Person  string `help:"Only this person (person_id of the registry)." placeholder:"PERSON"`
	ByGroup bool   `help:"Count each group's day instead of listing people."`
	listed  `embed:""`
}

func (a *attendanceCommand) Run(ctx context.Context, c *console) error {
	from, to, err := periodFlags(a.From, a.To)
	if err != nil {
		return err
	}
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		organisation, err := organisationByCode(ctx, d.pool, a.Org)
		if err != nil {
			return err
		}
		var one ledger.PersonID
		if a.Person != "" {
			person, err := personByCode(ctx, d.pool, a.Person)
			if err != nil {
				return err
			}
			one = person.ID
		}
		list, err := door.ReadAttendance(ctx, d.pool, organisation, a.Group, one, from, to, time.Now())
		if err != nil {
			return err
		}
		if a.ByGroup { // numbers name no child
			return a.print(c, schooldesk.ListGroups(list), list.GroupSheet(), nil)
		}
		var children []ledger.PersonID
		for _, m := range list.Members {
			if m.Kind == ledger.Pupil {
				children = append(children, m.Person)
			}
		}
		if err := look(ctx, d, a.actor(), "attendance", children); err != nil {
			return err
		}
		return a.print(c, schooldesk.ListAttendance(list), list.Sheet(), nil)
	})
}

type timetableCommands struct {
	Show    timetableShowCommand `cmd:"" help:"Show when the groups' days begin, and the days without lessons."`
	Set     timetableSetCommand  `cmd:"" help:"Set when the groups' days begin, from a CSV file: group, weekday (1 is Monday), begins."`
	Holiday holidayCommand       `cmd:"" help:"Make days ones without lessons, or with lessons again."`
}

type timetableShowCommand struct {
	Org  string `arg:"" help:"The organisation (org_id of the registry)."`
	JSON bool   `name:"json" help:"Print JSON."`
}

// isoWeekday counts from Monday, 1, to Sunday, 7.
func isoWeekday(day time.Weekday) int { return (int(day)+6)%7 + 1 }

func (t *timetableShowCommand) Run(ctx context.Context, c *console) error {
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		organisation, err := organisationByCode(ctx, d.pool, t.Org)
		if err != nil {
			return err
		}
		lessons, err := door.Timetable(ctx, d.pool, organisation)
		if err != nil {
			return err
		}
		holidays, err := door.Holidays(ctx, d.pool, organisation, time.Now().UTC().AddDate(0, 0, -1))
		if err != nil {
			return err
		}
		shown := schooldesk.Timetable{Lessons: []schooldesk.Lesson{}}
		var rows [][]any
		for _, l := range lessons {
			shown.Lessons = append(shown.Lessons, schooldesk.Lesson{Group: l.Group, Weekday: isoWeekday(l.Weekday), Begins: formatClock(l.Begins)})
			rows = append(rows, []any{l.Group, isoWeekday(l.Weekday), formatClock(l.Begins)})
		}
		for _, h := range holidays {
			shown.Holidays = append(shown.Holidays, h.Format(time.DateOnly))
		}
		if t.JSON {
			return printJSON(c.out, shown)
		}
		if err := table(c.out, []any{"GROUP", "WEEKDAY", "BEGINS"}, rows); err != nil || len(holidays) == 0 {
			return err
		}
		_, err = fmt.Fprintln(c.out, "without lessons:", strings.Join(shown.Holidays, " "))
		return err
	})
}

type timetableSetCommand struct {
	answering
	Org  string `arg:"" help:"The organisation (org_id of the registry)."`
	File string `arg:"" type:"existingfile" help:"The CSV file; an empty group is every group that has no lessons of its own."`
}

func (t *timetableSetCommand) Run(ctx context.Context, c *console) error {
	file, err := os.Open(t.File)
	if err != nil {
		return fmt.Errorf("read the timetable: %w", err)
	}
	defer file.Close()
	lessons, err := parseTimetable(file)
	if err != nil {
		return fmt.Errorf("%s: %w", t.File, err)
	}
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		organisation, err := organisationByCode(ctx, d.pool, t.Org)
		if err != nil {
			return err
		}
		err = pgx.BeginFunc(ctx, d.pool, func(tx pgx.Tx) error { return door.SetTimetable(ctx, tx, organisation, lessons) })
		if err != nil {
			return err
		}
		return t.print(c, map[string]any{"organisation": t.Org, "set": len(lessons)}, "%s: %d beginnings are set", t.Org, len(lessons))
	})
}

// parseTimetable reads group, weekday, begins; every error names its line.
func parseTimetable(r io.Reader) ([]door.Lesson, error) {
	in := csv.NewReader(r)
	in.FieldsPerRecord = 3
	records, err := in.ReadAll()
	if err != nil {
		return nil, err
	}
	if len(records) == 0 || !slices.Equal(records[0], []string{"group", "weekday", "begins"}) {
		return nil, errors.New("line 1: want the header group,weekday,begins")
	}
	var lessons []door.Lesson
	seen := map[string]int{}
	for i, record := range records[1:] {
		line := i + 2
		weekday, err := strconv.Atoi(record[1])
		if err != nil || weekday < 1 || weekday > 7 {
			return nil, fmt.Errorf("line %d: weekday %q is not 1 (Monday) to 7", line, record[1])
		}
		begins, err := parseClock(record[2])
		if err != nil {
			return nil, fmt.Errorf("line %d: begins: %w", line, err)
		}
		if before, twice := seen[record[0]+","+record[1]]; twice {
			return nil, fmt.Errorf("line %d: this group and weekday stand in line %d already", line, before)
		}
		seen[record[0]+","+record[1]] = line
		lessons = append(lessons, door.Lesson{Group: record[0], Weekday: time.Weekday(weekday % 7), Begins: begins})
	}
	return lessons, nil
}

type holidayCommand struct {
	answering
	Org     string   `arg:"" help:"The organisation (org_id of the registry)."`
	Days    []string `arg:"" help:"The days, such as 2026-11-04."`
	Lessons bool     `help:"They are days with lessons again."`
}

func (h *holidayCommand) Run(ctx context.Context, c *console) error {
	days := make([]time.Time, len(h.Days))
	for i, text := range h.Days {
		var err error
		if days[i], err = dayFlag("day", text); err != nil {
			return err
		}
	}
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		organisation, err := organisationByCode(ctx, d.pool, h.Org)
		if err != nil {
			return err
		}
		err = pgx.BeginFunc(ctx, d.pool, func(tx pgx.Tx) error {
			for _, day := range days { // typed by hand: a handful
				if err := door.SetHoliday(ctx, tx, organisation, day, !h.Lessons); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		return h.print(c, map[string]any{"organisation": h.Org, "set": len(days)}, "%s: %d days are set", h.Org, len(days))
	})
}

type excuseCommands struct {
	Add      excuseAddCommand      `cmd:"" help:"Note why somebody does not come."`
	List     excuseListCommand     `cmd:"" help:"List who is excused."`
	Withdraw excuseWithdrawCommand `cmd:"" help:"Take an excuse back."`
}

type excuseAddCommand struct {
	signed
	answering
	Person string `arg:"" help:"Who does not come (person_id of the registry)."`
	From   string `required:"" help:"The first day." placeholder:"YYYY-MM-DD"`
	To     string `help:"The last day; without it the first one." placeholder:"YYYY-MM-DD"`
	Reason string `required:"" help:"Why, in at most 200 characters."`
}

func (e *excuseAddCommand) Run(ctx context.Context, c *console) error {
	from, to, err := periodFlags(e.From, e.To)
	if err != nil {
		return err
	}
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		person, err := personByCode(ctx, d.pool, e.Person)
		if err != nil {
			return err
		}
		id, err := door.AddExcuse(ctx, d.pool, door.Excuse{
			Person: person.ID, FirstDay: from, LastDay: to, Reason: e.Reason, By: e.actor(),
		}, time.Now())
		if err != nil {
			return err
		}
		return e.print(c, map[string]any{"id": id}, "excuse %d", id)
	})
}

type excuseListCommand struct {
	signed
	Org  string `arg:"" help:"The organisation (org_id of the registry)."`
	From string `required:"" help:"The first day." placeholder:"YYYY-MM-DD"`
	To   string `help:"The last day; without it the first one." placeholder:"YYYY-MM-DD"`
	JSON bool   `name:"json" help:"Print JSON."`
}

func (e *excuseListCommand) Run(ctx context.Context, c *console) error {
	from, to, err := periodFlags(e.From, e.To)
	if err != nil {
		return err
	}
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		organisation, err := organisationByCode(ctx, d.pool, e.Org)
		if err != nil {
			return err
		}
		found, err := door.Excuses(ctx, d.pool, organisation, 0, from, to)
		if err != nil {
			return err
		}
		var ids []ledger.PersonID
		for _, x := range found {
			ids = append(ids, x.Person)
		}
		people, err := ledger.People(ctx, d.pool, ids)
		if err != nil {
			return err
		}
		if err := look(ctx, d, e.actor(), "excuses", ids); err != nil {
			return err
		}
		shown := make([]schooldesk.Excuse, len(found))
		rows := make([][]any, len(found))
		for i, x := range found {
			shown[i] = schooldesk.Excuse{
				ID: x.ID, Person: people[x.Person].Code, FirstDay: x.FirstDay.Format(time.DateOnly),
				LastDay: x.LastDay.Format(time.DateOnly), Reason: x.Reason, By: x.Actor,
			}
			rows[i] = []any{x.ID, shown[i].Person, shown[i].FirstDay, shown[i].LastDay, x.Reason, x.Actor}
		}
		if e.JSON {
			return printJSON(c.out, shown)
		}
		return table(c.out, []any{"ID", "PERSON", "FROM", "TO", "REASON", "BY"}, rows)
	})
}

type excuseWithdrawCommand struct {
	answering
	Org string `arg:"" help:"The organisation (org_id of the registry)."`
	ID  int64  `arg:"" help:"The excuse, as excuse list shows it."`
}

func (e *excuseWithdrawCommand) Run(ctx context.Context, c *console) error {
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		organisation, err := organisationByCode(ctx, d.pool, e.Org)
		if err != nil {
			return err
		}
		if err := door.WithdrawExcuse(ctx, d.pool, organisation, e.ID, time.Now()); err != nil {
			return err
		}
		return e.print(c, map[string]any{"id": e.ID, "state": "withdrawn"}, "excuse %d is withdrawn", e.ID)
	})
}

type quarantineCommands struct {
	List   quarantineListCommand   `cmd:"" help:"List the rejected events that nobody has looked after."`
	Settle quarantineSettleCommand `cmd:"" help:"Note that a rejected event has been looked after."`
}

type quarantineListCommand struct {
	Org  string `arg:"" help:"The organisation (org_id of the registry)."`
	JSON bool   `name:"json" help:"Print JSON."`
}

func (q *quarantineListCommand) Run(ctx context.Context, c *console) error {
	const limit = 1000
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		organisation, err := organisationByCode(ctx, d.pool, q.Org)
		if err != nil {
			return err
		}
		found, err := reader.Quarantine(ctx, d.pool, organisation, limit)
		if err != nil {
			return err
		}
		shown := make([]schooldesk.Quarantined, len(found))
		rows := make([][]any, len(found))
		for i, e := range found {
			shown[i] = schooldesk.Quarantined{
				Event: e.Event, Device: e.Device, Seq: e.Seq, Code: e.Code, Message: e.Message, Body: e.Body, ReceivedAt: e.ReceivedAt,
			}
			rows[i] = []any{e.Event, fmt.Sprintf("%d:%d", e.Device, e.Seq), e.ReceivedAt.Local().Format(moment), e.Code, e.Message}
		}
		if q.JSON {
			return printJSON(c.out, shown)
		}
		return table(c.out, []any{"EVENT", "DEVICE:SEQ", "RECEIVED", "CODE", "MESSAGE"}, rows)
	})
}

type quarantineSettleCommand struct {
	signed
	answering
	Org   string         `arg:"" help:"The organisation (org_id of the registry)."`
	Event ledger.EventID `arg:"" help:"The event, as quarantine list shows it."`
}

func (q *quarantineSettleCommand) Run(ctx context.Context, c *console) error {
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		organisation, err := organisationByCode(ctx, d.pool, q.Org)
		if err != nil {
			return err
		}
		if err := reader.SettleQuarantined(ctx, d.pool, organisation, q.Event, q.actor(), time.Now()); err != nil {
			return err
		}
		return q.print(c, map[string]any{"event": q.Event, "state": "settled"}, "event %d is settled", q.Event)
	})
}
