package office_test

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/xuri/excelize/v2"

	"zvonok/access"
	"zvonok/access/door"
	"zvonok/access/office"
	"zvonok/access/reader"
	"zvonok/access/reader/apidoc"
	"zvonok/ledger"
	"zvonok/ledger/meal"
	"zvonok/ledger/pg"
	"zvonok/ledger/pg/pgtest"
)

var moscow = time.FixedZone("MSK", 3*60*60)

// morning is when tests happen: a Monday, 10:00 in Moscow.
var morning = time.Date(2026, 11, 23, 10, 0, 0, 0, moscow)

// town has two schools, s-1 and s-2, each with a building, the pupils p-1-1,
// p-1-2 and the member of staff t-1, and a staff tablet.
type town struct {
	*testing.T
	pool     *pgxpool.Pool
	api      *http.ServeMux
	url      string
	recorder *door.Recorder
	intake   *reader.Intake
	client   *http.Client
	now      time.Time
	keys     map[string]string
	people   map[string]ledger.PersonID
	orgs     map[string]ledger.OrganisationID
}

func newTown(t *testing.T) *town {
	t.Helper()
	t.Parallel()
	c := &town{
		T: t, pool: pgtest.New(t), client: http.DefaultClient, now: morning, keys: map[string]string{}, people: map[string]ledger.PersonID{},
		orgs: map[string]ledger.OrganisationID{},
	}
	for _, n := range []string{"1", "2"} {
		var org ledger.OrganisationID
		c.row(&org, `INSERT INTO ledger.organisation (code, kind, name, short_name, time_zone)
			VALUES ('s-' || $1, 'school', 'Школа', 'Школа', 'Europe/Moscow') RETURNING id`, n)
		c.orgs["s-"+n] = org
		c.exec(`INSERT INTO ledger.building (code, organisation_id, address) VALUES ('b-' || $1, $2, 'Улица, 1')`, n, org)
		for code, kind := range map[string]string{"p-" + n + "-1": "pupil", "p-" + n + "-2": "pupil", "t-" + n: "staff"} {
			var id ledger.PersonID
			c.row(&id, `INSERT INTO ledger.person (code, organisation_id, kind, family_name, given_name, group_name)
				VALUES ($1, $2, $3, $4, 'Маша', CASE $3 WHEN 'pupil' THEN '5 «А»' ELSE '' END) RETURNING id`,
				code, org, kind, map[string]string{"1": "Петрова", "2": "Орлова"}[n])
			c.people[code] = id
		}
		c.keys["s-"+n] = c.device(reader.StaffTablet, "b-"+n)
	}
	client, err := river.NewClient(riverpgxv5.New(c.pool), &river.Config{Schema: pg.RiverSchema})
	c.must(err)
	c.recorder = door.NewRecorder(client)
	c.api = http.NewServeMux()
	c.intake = reader.NewIntake(reader.Config{
		Pool: c.pool, River: client, Recorder: c.recorder, Canteen: meal.NewCanteen(ledger.NewBook(client), client),
		Log: slog.New(slog.DiscardHandler), Metrics: reader.NewMetrics(prometheus.NewPedanticRegistry()), Now: func() time.Time { return c.now },
	})
	t.Cleanup(c.intake.Close)
	office.New(office.Config{
		Pool: c.pool, Recorder: c.recorder, Intake: c.intake, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return c.now },
	}).Register(apidoc.New(c.api, "test"))
	server := httptest.NewServer(c.api)
	t.Cleanup(server.Close)
	c.url = server.URL
	return c
}

func (c *town) device(kind reader.DeviceKind, building string) string {
	c.Helper()
	_, key, err := reader.AddDevice(c.Context(), c.pool, reader.NewDevice{Name: "d", Kind: kind, Building: building}, c.now)
	c.must(err)
	return key.Reveal()
}

func (c *town) must(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

func (c *town) exec(sql string, args ...any) {
	c.Helper()
	_, err := c.pool.Exec(c.Context(), sql, args...)
	c.must(err)
}

func (c *town) row(to any, sql string, args ...any) {
	c.Helper()
	c.must(c.pool.QueryRow(c.Context(), sql, args...).Scan(to))
}

// pass records that somebody of the first school passed.
func (c *town) pass(person string, direction door.Direction, at time.Time) {
	c.Helper()
	c.must(pgx.BeginFunc(c.Context(), c.pool, func(tx pgx.Tx) error {
		var building ledger.BuildingID
		if err := tx.QueryRow(c.Context(), `SELECT id FROM ledger.building WHERE code = 'b-1'`).Scan(&building); err != nil {
			return err
		}
		ids, err := ledger.NextEventIDs(c.Context(), tx, 1)
		if err != nil {
			return err
		}
		_, err = c.recorder.Record(c.Context(), tx, at, []door.Tap{{
			Event: ids[0], Device: 1, Organisation: c.orgs["s-1"], Building: building, Person: c.people[person],
			Direction: direction, Kind: door.ByCard, At: at, ReceivedAt: at,
		}})
		return err
	}))
}

// reply is an answer.
type reply struct {
	status int
	header http.Header
	body   []byte
}

// into reads the JSON of an answer.
func (r reply) into(t testing.TB, v any) {
	t.Helper()
	if err := json.Unmarshal(r.body, v); err != nil {
		t.Fatalf("%d %s: %v", r.status, r.body, err)
	}
}

// ask sends a request of a school's tablet, its member of staff at it.
func (c *town) ask(school, method, path string, body any) reply {
	c.Helper()
	return c.askAs(c.keys[school], "t-"+school[2:], method, path, body)
}

func (c *town) askAs(key, staff, method, path string, body any) reply {
	c.Helper()
	var content io.Reader
	if body != nil {
		document, err := json.Marshal(body)
		c.must(err)
		content = bytes.NewReader(document)
	}
	request, err := http.NewRequestWithContext(c.Context(), method, c.url+path, content)
	c.must(err)
	request.Header.Set("Authorization", "Bearer "+key)
	request.Header.Set("Staff", staff)
	request.Header.Set("Content-Type", "application/json")
	response, err := c.client.Do(request)
	c.must(err)
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	c.must(err)
	return reply{response.StatusCode, response.Header, answer}
}

// want asks and checks the status.
func (c *town) want(status int, method, path string, body any) reply {
	c.Helper()
	r := c.ask("s-1", method, path, body)
	if r.status != status {
		c.Fatalf("%s %s: %d, want %d: %s", method, path, r.status, status, r.body)
	}
	return r
}

func (c *town) views() (list []string) {
	c.Helper()
	rows, err := c.pool.Query(c.Context(), `
		SELECT v.actor_kind || ':' || v.actor_id || ' ' || p.code || ' ' || v.what || ' ' || v.channel
		  FROM access.view_log v JOIN ledger.person p ON p.id = v.child_id ORDER BY p.code, v.what, v.channel`)
	c.must(err)
	list, err = pgx.CollectRows(rows, pgx.RowTo[string])
	c.must(err)
	return list
}

// R16, R17, R18, R19, R21: what a secretary does with cards from issue to return.
func TestACardsLifeAtTheDesk(t *testing.T) {
	c := newTown(t)
	var card office.Card
	c.want(201, "POST", "/api/v1/staff/cards", office.Order{Card: "9a:3f:10:5c", Person: "p-1-1", Kind: "social"}).into(t, &card)
	if card.State != access.Issued || card.Card != "9A3F105C" || card.Person != "p-1-1" || card.Name != "Петрова Маша" {
		t.Fatalf("issued %+v", card)
	}
	path := fmt.Sprintf("/api/v1/staff/cards/%d", card.ID)
	c.want(422, "POST", path+"/hand-over", office.Step{}) // nobody signed
	c.want(200, "POST", path+"/hand-over", office.Step{Signature: "лист 12, строка 3"}).into(t, &card)
	if card.State != access.Active || card.History[1].Signature != "лист 12, строка 3" || card.History[1].By != "staff:t-1" {
		t.Errorf("handed over %+v", card)
	}
	c.want(409, "POST", "/api/v1/staff/cards", office.Order{Card: "9A3F105C", Person: "p-1-2"})
	// Forgotten at home: a card for today, of the same person.
	var lent office.Card
	c.want(201, "POST", "/api/v1/staff/cards", office.Order{Card: "04A1B2C3D4E580", Person: "p-1-1", Lend: true}).into(t, &lent)
	if lent.State != access.Temporary || !lent.ValidUntil.Equal(time.Date(2026, 11, 23, 22, 0, 0, 0, moscow)) || lent.Person != "p-1-1" {
		t.Errorf("lent %+v", lent)
	}
	c.want(200, "POST", path+"/block", office.Step{Note: "потеряна в метро"}).into(t, &card)
	if card.State != access.BlockedLost {
		t.Errorf("blocked %+v", card)
	}
	c.want(200, "POST", path+"/found", nil)
	c.want(200, "POST", path+"/replace", office.Step{Card: "9A3F1060", ValidUntil: "2027-05-31"}).into(t, &card)
	if card.State != access.Issued || card.Card != "9A3F1060" || card.Kind != access.SocialCard ||
		!card.ValidUntil.Equal(time.Date(2027, 6, 1, 0, 0, 0, 0, moscow)) {
		t.Errorf("the new card is %+v", card)
	}
	c.want(409, "POST", path+"/hand-over", office.Step{Signature: "x"}) // it is blocked for good
	c.want(200, "POST", path+"/return", nil)
	c.want(200, "POST", path+"/destroy", office.Step{Note: "разрезана"}).into(t, &card)
	var steps []string
	for _, s := range card.History {
		steps = append(steps, s.What)
	}
	if want := "issued handed_over blocked_lost found blocked_replaced returned destroyed"; strings.Join(steps, " ") != want {
		t.Errorf("the history is %v", steps)
	}
	var found struct{ Cards []office.Card }
	c.want(200, "GET", "/api/v1/staff/cards?person=p-1-1", nil).into(t, &found)
	if len(found.Cards) != 3 {
		t.Errorf("the person has %+v", found.Cards)
	}
	c.want(200, "GET", "/api/v1/staff/cards?card=04A1B2C3D4E580", nil).into(t, &found)
	if len(found.Cards) != 1 || found.Cards[0].ID != lent.ID {
		t.Errorf("the identifier is of %+v", found.Cards)
	}
	for name, order := range map[string]office.Order{
		"of nobody":                     {Card: "9A3F1070"},
		"of two":                        {Card: "9A3F1070", Person: "p-1-1", Companion: "+79000000001"},
		"of a kind that is none":        {Card: "9A3F1070", Person: "p-1-1", Kind: "ring"},
		"temporary for ever":            {Card: "9A3F1070", Person: "p-1-1", Kind: "temporary"},
		"that is none":                  {Card: "9A3F", Person: "p-1-1"},
		"read by halves":                {Card: "8804A1B2", Person: "p-1-1"},
		"whose time is over":            {Card: "9A3F1070", Person: "p-1-1", ValidUntil: "2026-11-22"},
		"of an unknown companion":       {Card: "9A3F1070", Companion: "+79000000099"},
		"of what is no companion phone": {Card: "9A3F1070", Companion: "911"},
	} {
		if r := c.ask("s-1", "POST", "/api/v1/staff/cards", order); r.status != 422 {
			t.Errorf("a card %s: %d %s", name, r.status, r.body)
		}
	}
}

func TestOnlyStaffOfTheTabletsSchoolAreServed(t *testing.T) {
	c := newTown(t)
	ask := func(key, staff string) int { return c.askAs(key, staff, "GET", "/api/v1/staff/presence", nil).status }
	for name, test := range map[string]struct {
		key, staff string
		status     int
	}{
		"a tablet and its staff":        {c.keys["s-1"], "t-1", 200},
		"no such key":                   {"zvk_nothing", "t-1", 401},
		"a door":                        {c.device(reader.Door, "b-1"), "t-1", 403},
		"nobody at it":                  {c.keys["s-1"], "", 403},
		"a pupil at it":                 {c.keys["s-1"], "p-1-1", 403},
		"another school's staff at it":  {c.keys["s-1"], "t-2", 403},
		"somebody unknown at it":        {c.keys["s-1"], "t-9", 403},
		"another school's own, as such": {c.keys["s-2"], "t-2", 200},
	} {
		if got := ask(test.key, test.staff); got != test.status {
			t.Errorf("%s: %d, want %d", name, got, test.status)
		}
	}
	c.exec(`UPDATE ledger.person SET left_on = '2026-11-23' WHERE code = 't-1'`)
	if got := ask(c.keys["s-1"], "t-1"); got != 403 {
		t.Errorf("somebody who has left: %d", got)
	}
	c.exec(`UPDATE reader.device SET revoked_at = now()`)
	if got := ask(c.keys["s-2"], "t-2"); got != 401 {
		t.Errorf("a revoked key: %d", got)
	}
}

// Fault row 58 between schools: the other school's tablet asks every route after
// this school's ids and learns and changes nothing.
func TestAnotherSchoolsTabletSeesAndChangesNothing(t *testing.T) {
	c := newTown(t)
	var card office.Card
	c.want(201, "POST", "/api/v1/staff/cards", office.Order{Card: "9A3F105C", Person: "p-1-1"}).into(t, &card)
	var excuse office.Excuse
	c.want(201, "POST", "/api/v1/staff/excuses", office.Excuse{
		Person: "p-1-1", FirstDay: "2026-11-23", LastDay: "2026-11-23", Reason: "секрет",
	}).into(t, &excuse)
	c.pass("p-1-1", door.In, morning)
	c.exec(`INSERT INTO door.alarm (event_id, at, person_id, organisation_id, building_id, kind, raised_at)
		SELECT 900, now(), $1, b.organisation_id, b.id, 'no_companion', now() FROM ledger.building b WHERE code = 'b-1'`, c.people["p-1-1"])
	c.exec(`INSERT INTO door.absence_batch (organisation_id, day, made_at, state, cause, arrived, usual)
		VALUES ($1, '2026-11-23', now(), 'held', 'few_arrivals', 1, 9)`, c.orgs["s-1"])
	c.exec(`INSERT INTO reader.quarantine (event_id, device_id, seq, code, message, body, received_at)
		SELECT 901, min(id), 1, 'clock', 'секрет', '{}', now() FROM reader.device`)
	c.exec(`INSERT INTO reader.device_alarm (device_id, kind, raised_at, last_at, evidence)
		SELECT min(id), 'two_addresses', now(), now(), 'секрет' FROM reader.device`)
	var batch, alarm int64
	c.row(&batch, `SELECT id FROM door.absence_batch`)
	c.row(&alarm, `SELECT id FROM reader.device_alarm`)
	before := c.state()
	var api struct {
		Paths map[string]map[string]struct{ OperationID string }
	}
	c.ask("s-2", "GET", "/api/openapi.json", nil).into(t, &api)
	routes := 0
	for path, methods := range api.Paths {
		for method := range methods {
			full := strings.NewReplacer("{id}", fmt.Sprint(card.ID), "{step}", "block", "{event}", "900", "{batch}", fmt.Sprint(batch),
				"{alarm}", fmt.Sprint(alarm), "{decision}", "release", "{day}", "2026-11-24").Replace(path)
			bodies := []any{nil}
			queries := []string{"?from=2026-11-23&person=p-1-1&card=9A3F105C&building=b-1", "?from=2026-11-23&person=p-1-1", "?from=2026-11-23", "?card=9A3F105C"}
			switch {
			case strings.Contains(path, "timetable"), strings.Contains(path, "holidays"):
				continue // of the tablet's own organisation, by their very shape
			case method == "post" && strings.HasSuffix(path, "/cards"):
				bodies = []any{office.Order{Card: "9A3F1070", Person: "p-1-1"}, office.Order{Card: "9A3F1070", Person: "p-1-1", Lend: true}}
			case method == "post" && strings.HasSuffix(path, "/excuses"):
				bodies = []any{office.Excuse{Person: "p-1-1", FirstDay: "2026-11-23", LastDay: "2026-11-23", Reason: "x"}}
			case strings.Contains(path, "{step}"):
				bodies = []any{office.Step{Signature: "x", Card: "9A3F1070"}}
			case strings.Contains(path, "excuses/{id}"):
				full = fmt.Sprintf("/api/v1/staff/excuses/%d", excuse.ID)
			}
			for _, body := range bodies {
				for _, query := range queries {
					routes++
					r := c.ask("s-2", strings.ToUpper(method), full+query, body)
					if text := string(r.body); strings.Contains(text, "Петрова") || strings.Contains(text, "секрет") || strings.Contains(text, "p-1-1") {
						t.Errorf("%s %s%s shows %s", method, full, query, text)
					}
					if method != "get" && r.status != 404 {
						t.Errorf("%s %s: %d %s", method, full, r.status, r.body)
					}
				}
			}
		}
	}
	if routes < 40 {
		t.Errorf("only %d requests were made", routes)
	}
	if after := c.state(); after != before {
		t.Errorf("something changed:\n%s\nwas\n%s", after, before)
	}
}

// state is what the other school must not change.
func (c *town) state() (state string) {
	c.Helper()
	c.row(&state, `SELECT concat_ws(' ', (SELECT string_agg(c::text, ';') FROM access.card c),
		(SELECT string_agg(e::text, ';') FROM door.excuse e), (SELECT string_agg(a::text, ';') FROM door.alarm a),
		(SELECT string_agg(b::text, ';') FROM door.absence_batch b), (SELECT string_agg(q.settled_by, ';') FROM reader.quarantine q),
		(SELECT string_agg(a::text, ';') FROM reader.device_alarm a))`)
	return state
}

// R48, D14: the evacuation list in every form, and the looks at it in the log.
func TestWhoIsInsideIsListedAndTheLookIsLogged(t *testing.T) {
	c := newTown(t)
	c.exec(`UPDATE ledger.person SET given_name = '=1+1', patronymic = '<script>' WHERE code = 'p-1-1'`)
	c.pass("p-1-1", door.In, morning.Add(-time.Hour))
	c.pass("p-1-2", door.In, morning.Add(-time.Hour))
	c.pass("p-1-2", door.Out, morning.Add(-30*time.Minute))
	c.pass("t-1", door.In, morning.Add(-time.Hour))
	var list office.Presence
	c.want(200, "GET", "/api/v1/staff/presence", nil).into(t, &list)
	if len(list.People) != 2 || list.People[0].Code != "p-1-1" || list.Buildings[0] != (office.HeadCount{Building: "b-1", Address: "Улица, 1", Pupils: 1, Staff: 1}) {
		t.Errorf("inside %+v", list)
	}
	page := c.want(200, "GET", "/api/v1/staff/presence?format=html", nil)
	if text := string(page.body); !strings.Contains(text, "5 «А»") || !strings.Contains(text, "09:00") || !strings.Contains(text, "&lt;script&gt;") ||
		strings.Contains(text, "<script>") || !strings.Contains(page.header.Get("Content-Security-Policy"), "sha256-") {
		t.Errorf("the page is %s %s", page.header, text)
	}
	file := c.want(200, "GET", "/api/v1/staff/presence?format=csv", nil)
	lines, err := csv.NewReader(bytes.NewReader(file.body)).ReadAll()
	c.must(err)
	if len(lines) != 3 || lines[1][5] != "'=1+1" || !strings.Contains(file.header.Get("Content-Disposition"), "presence.csv") {
		t.Errorf("the file is %q", lines)
	}
	if got, want := strings.Join(c.views(), "\n"), "staff:t-1 p-1-1 presence export\n"+
		"staff:t-1 p-1-1 presence staff\nstaff:t-1 p-1-1 presence staff"; got != want {
		t.Errorf("the access log:\n%s\nwant\n%s", got, want)
	}
}

// R4, R48: attendance with excuses and a timetable, as JSON, CSV and XLSX.
func TestAttendanceIsReadByDayGroupAndPerson(t *testing.T) {
	c := newTown(t)
	var lessons []office.Lesson
	for day := 1; day <= 5; day++ {
		lessons = append(lessons, office.Lesson{Weekday: day, Begins: "08:30"})
	}
	var table office.Timetable
	c.want(200, "PUT", "/api/v1/staff/timetable", office.Timetable{Lessons: lessons}).into(t, &table)
	if len(table.Lessons) != 5 || table.Lessons[4] != (office.Lesson{Weekday: 5, Begins: "08:30"}) {
		t.Errorf("the timetable is %+v", table)
	}
	c.want(422, "PUT", "/api/v1/staff/timetable", office.Timetable{Lessons: append(lessons, lessons[0])})
	c.want(204, "PUT", "/api/v1/staff/holidays/2026-11-24", nil)
	c.want(200, "GET", "/api/v1/staff/timetable", nil).into(t, &table)
	if len(table.Holidays) != 1 || table.Holidays[0] != "2026-11-24" {
		t.Errorf("holidays %v", table.Holidays)
	}
	var excuse office.Excuse
	c.want(201, "POST", "/api/v1/staff/excuses", office.Excuse{
		Person: "p-1-2", FirstDay: "2026-11-23", LastDay: "2026-11-25", Reason: "болезнь",
	}).into(t, &excuse)
	c.pass("p-1-1", door.In, time.Date(2026, 11, 23, 8, 41, 0, 0, moscow))
	c.pass("t-1", door.In, time.Date(2026, 11, 23, 8, 0, 0, 0, moscow))
	c.now = time.Date(2026, 11, 25, 12, 0, 0, 0, moscow)

	var list office.AttendanceList
	c.want(200, "GET", "/api/v1/staff/attendance?from=2026-11-23&to=2026-11-25", nil).into(t, &list)
	var days []string
	for _, d := range list.Days {
		days = append(days, fmt.Sprintf("%s %s %s %d %v %s", d.Date, d.Person, d.Status, d.Late, d.Incomplete, d.Reason))
	}
	if got, want := strings.Join(days, "\n"), strings.Join([]string{
		"2026-11-23 p-1-1 late 11 true ", "2026-11-23 p-1-2 excused 0 false болезнь", "2026-11-23 t-1 present 0 true ",
		"2026-11-24 p-1-2 excused 0 false болезнь", "2026-11-25 p-1-1 absent 0 false ", "2026-11-25 p-1-2 excused 0 false болезнь",
	}, "\n"); got != want {
		t.Errorf("the days are\n%s\nwant\n%s", got, want)
	}
	c.want(200, "GET", "/api/v1/staff/attendance?from=2026-11-23&person=p-1-1", nil).into(t, &list)
	if len(list.Members) != 1 || len(list.Days) != 1 {
		t.Errorf("of one person %+v", list)
	}
	var groups office.GroupList
	c.want(200, "GET", "/api/v1/staff/attendance/groups?from=2026-11-23", nil).into(t, &groups)
	if len(groups.Groups) != 2 || groups.Groups[0] != (office.GroupDay{
		Date: "2026-11-23", Kind: ledger.Pupil, Group: "5 «А»", Listed: 2, Present: 1, Late: 1, Excused: 1, Incomplete: 1,
	}) {
		t.Errorf("groups %+v", groups)
	}
	book, err := excelize.OpenReader(bytes.NewReader(c.want(200, "GET", "/api/v1/staff/attendance?from=2026-11-23&to=2026-11-25&format=xlsx", nil).body))
	c.must(err)
	defer book.Close()
	if rows, err := book.GetRows("attendance"); err != nil || len(rows) != 7 {
		t.Errorf("the workbook has %d rows, %v", len(rows), err)
	}
	c.want(204, "DELETE", fmt.Sprintf("/api/v1/staff/excuses/%d", excuse.ID), nil)
	var excuses struct{ Excuses []office.Excuse }
	c.want(200, "GET", "/api/v1/staff/excuses?from=2026-11-01&to=2026-11-30", nil).into(t, &excuses)
	if len(excuses.Excuses) != 0 {
		t.Errorf("excuses %+v", excuses)
	}
	for _, query := range []string{"", "?from=yesterday", "?from=2026-11-23&to=2026-11-22", "?from=2020-01-01&to=2026-01-01"} {
		c.want(422, "GET", "/api/v1/staff/attendance"+query, nil)
	}
}

// spec/door.md: what only staff are to see.
func TestStaffSeeAlarmsSecondPassesAndRefusals(t *testing.T) {
	c := newTown(t)
	c.exec(`UPDATE ledger.organisation SET kind = 'kindergarten', same_pass = '0' WHERE code = 's-1'`)
	c.pass("p-1-1", door.Out, morning)
	c.pass("p-1-2", door.In, morning)
	c.pass("p-1-2", door.In, morning.Add(5*time.Second))
	c.must(pgx.BeginFunc(c.Context(), c.pool, func(tx pgx.Tx) error {
		return c.recorder.Deny(c.Context(), tx, []door.Denial{{
			Event: 999, Device: 1, Organisation: c.orgs["s-1"], Building: 1, Card: "FFFFFFFF", Reason: "unknown", At: morning, ReceivedAt: morning,
		}})
	}))
	c.now = morning.Add(time.Minute)
	var watch office.Watch
	c.want(200, "GET", "/api/v1/staff/watch", nil).into(t, &watch)
	if len(watch.Alarms) != 1 || watch.Alarms[0].Kind != door.NoCompanion || watch.Alarms[0].Person != "p-1-1" ||
		len(watch.Suspicions) != 1 || watch.Suspicions[0].Person != "p-1-2" ||
		len(watch.Denials) != 1 || watch.Denials[0].Card != "FFFFFFFF" {
		t.Errorf("to be looked at: %+v", watch)
	}
	settle := fmt.Sprintf("/api/v1/staff/alarms/%d/settle", watch.Alarms[0].Event)
	c.want(204, "POST", settle, nil)
	c.want(404, "POST", settle, nil)
	c.want(200, "GET", "/api/v1/staff/watch?day=2026-11-23", nil).into(t, &watch)
	if watch.Alarms[0].SettledBy != "staff:t-1" {
		t.Errorf("settled by %q", watch.Alarms[0].SettledBy)
	}
	c.want(200, "GET", "/api/v1/staff/watch?day=2026-11-22", nil).into(t, &watch)
	if len(watch.Alarms)+len(watch.Suspicions)+len(watch.Denials) != 0 {
		t.Errorf("the day before: %+v", watch)
	}
}

// Row 55 of spec/reliability.md: staff see that a device of theirs may be cloned,
// until one of them has looked after it; another school's staff see nothing.
func TestStaffSeeAndSettleTheAlarmsOfTheirDevices(t *testing.T) {
	c := newTown(t)
	c.exec(`INSERT INTO reader.device_alarm (device_id, kind, raised_at, last_at, evidence)
		SELECT d.id, 'two_addresses', $1, $1, '192.0.2.1 and 192.0.2.2' FROM reader.device d
		  JOIN ledger.building b ON b.id = d.building_id WHERE b.organisation_id = $2`, morning, c.orgs["s-1"])
	c.now = morning.AddDate(0, 0, 3)
	var watch office.Watch
	c.want(200, "GET", "/api/v1/staff/watch", nil).into(t, &watch)
	if len(watch.Devices) != 1 || watch.Devices[0].Kind != reader.TwoAddresses || watch.Devices[0].Evidence != "192.0.2.1 and 192.0.2.2" {
		t.Fatalf("devices %+v", watch.Devices)
	}
	settle := fmt.Sprintf("/api/v1/staff/device-alarms/%d/settle", watch.Devices[0].ID)
	var foreign office.Watch
	c.ask("s-2", "GET", "/api/v1/staff/watch", nil).into(t, &foreign)
	if r := c.ask("s-2", "POST", settle, nil); r.status != 404 || len(foreign.Devices) != 0 {
		t.Errorf("another school: %d, %+v", r.status, foreign.Devices)
	}
	c.want(204, "POST", settle, nil)
	c.want(404, "POST", settle, nil)
	c.want(200, "GET", "/api/v1/staff/watch", nil).into(t, &watch)
	if len(watch.Devices) != 0 {
		t.Errorf("after it was settled: %+v", watch.Devices)
	}
}

// Row 55 of spec/reliability.md: the stolen key of a staff tablet is used from a
// second address. The school is told at the tablet; nothing is refused.
func TestATabletsKeyUsedFromTwoAddressesRaisesAnAlarm(t *testing.T) {
	c := newTown(t)
	for _, address := range []string{"127.0.0.1", "127.0.0.2"} {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
		c.client = &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}}
		c.want(200, "GET", "/api/v1/staff/watch", nil)
		c.now = c.now.Add(20 * time.Second)
	}
	c.intake.Close() // writes down where tablets were heard
	var watch office.Watch
	c.want(200, "GET", "/api/v1/staff/watch", nil).into(t, &watch)
	if len(watch.Devices) != 1 || watch.Devices[0].Kind != reader.TwoAddresses || watch.Devices[0].Evidence != "127.0.0.1 and 127.0.0.2" {
		t.Errorf("alarms of devices %+v", watch.Devices)
	}
}
