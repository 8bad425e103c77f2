package parent_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"zvonok/access"
	"zvonok/access/door"
	"zvonok/access/phone"
	"zvonok/access/reader"
	"zvonok/access/reader/apidoc"
	"zvonok/gateway/delivery"
	"zvonok/gateway/notice"
	"zvonok/gateway/parent"
	"zvonok/gateway/push"
	"zvonok/gateway/subscription"
	"zvonok/ledger"
	"zvonok/ledger/meal"
	"zvonok/ledger/money"
	"zvonok/ledger/pg"
	"zvonok/ledger/pg/pgtest"
	"zvonok/ledger/registry"
)

var moscow = time.FixedZone("MSK", 3*60*60)

// noon is a Monday in Moscow, after lunch.
var noon = time.Date(2026, 11, 23, 13, 30, 0, 0, moscow)

// The phones of the world. Olga is the mother of Masha and Petya, Oleg the
// father of Masha, Anna their trusted grandmother; Nina is the mother of Ivan, in
// another school. Nobody has the phone of the stranger.
const (
	olga     = "+79000000001"
	oleg     = "+79000000002"
	anna     = "+79000000003"
	nina     = "+79000000004"
	stranger = "+79000000077"
)

var files = map[string]string{
	"payees.csv": "payee_id,name,inn,payment_code\nkp,Комбинат,7700000009,916\n",
	"organisations.csv": "org_id,kind,name,short_name,payee_id,time_zone,account_prefix\n" +
		"s1,school,Школа 1,Шк 1,kp,Europe/Moscow,0020\ns2,school,Школа 2,Шк 2,kp,Europe/Moscow,0030\n",
	"buildings.csv": "building_id,org_id,address\nb1,s1,ул. Примерная\nb2,s2,ул. Вторая\n",
	"people.csv": "person_id,org_id,kind,family_name,given_name,patronymic,group,benefit,account,left\n" +
		"masha,s1,pupil,Петрова,Маша,,1А,breakfast,00101519,\npetya,s1,pupil,Петров,Петя,,2А,none,,\n" +
		"ivan,s2,pupil,Орлов,Иван,,3А,none,,\n" +
		"teacher,s1,staff,Строгова,Вера,Ильинична,,none,,\nother,s2,staff,Добров,Пётр,,,none,,\n",
	"guardians.csv": "phone,email,family_name,given_name,patronymic,language,translit,person_id,role,consent_date,consent_until\n" +
		olga + ",,Петрова,Ольга,,ru,no,masha,legal,2026-09-01,\n" +
		olga + ",,Петрова,Ольга,,ru,no,petya,legal,2026-09-01,\n" +
		oleg + ",,Петров,Олег,,ru,yes,masha,legal,2026-09-01,\n" +
		anna + ",,Соколова,Анна,,en,no,masha,trusted,2026-09-01,\n" +
		nina + ",,Орлова,Нина,,ru,no,ivan,legal,2026-09-01,\n",
	"subscriptions.csv": "phone,person_id,event,channel,mode,threshold\n" +
		olga + ",masha,pass,sms,now,\n" + anna + ",masha,pass,sms,now,\n",
	"menu.csv": "org_id,date,meal,dish,portion_g,kcal,protein_g,fat_g,carbohydrate_g,allergens,price\n" +
		"s1,2026-11-23,lunch,Борщ,250,180.5,6,7,20,,60.00\ns1,2026-11-23,lunch,Хлеб,30,70,2,1,14,глютен,5.00\n" +
		"s1,2026-11-27,lunch,Суп,250,150,6,7,20,,60.00\ns1,2026-11-27,lunch,Плов,200,400,20,15,45,,90.00\n",
}

// world is a city with the parents' API, on real parts but for the operators: a
// test reads an SMS where it waits to be sent.
type world struct {
	*testing.T
	pool   *pgxpool.Pool
	jobs   *river.Client[pgx.Tx]
	desk   *delivery.Desk
	teller *notice.Teller
	api    *parent.API
	intake *reader.Intake
	url    string
	client *http.Client
	logs   *record
	trace  *trace
	people map[string]ledger.PersonID
	orgs   map[string]ledger.OrganisationID

	mu sync.Mutex
	at time.Time
}

// record keeps what is logged.
type record struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(p)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// trace notes the statements that the API sends.
type trace struct {
	mu         sync.Mutex
	statements []statement
}

type statement struct {
	sql  string
	args []any
}

func (t *trace) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.statements = append(t.statements, statement{data.SQL, data.Args})
	return ctx
}

func (*trace) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// take returns what was noted since the last time.
func (t *trace) take() []statement {
	t.mu.Lock()
	defer t.mu.Unlock()
	taken := t.statements
	t.statements = nil
	return taken
}

func newWorld(t *testing.T) *world {
	t.Helper()
	t.Parallel()
	return worldOn(t, pgtest.NewURL(t))
}

func worldOn(t *testing.T, url string) *world { return worldReading(t, url, nil) }

// worldReading is a world whose API reads history where it is told to.
func worldReading(t *testing.T, url string, read *pg.Reader) *world {
	t.Helper()
	w := &world{
		T: t, client: http.DefaultClient, at: noon, logs: &record{}, trace: &trace{}, people: map[string]ledger.PersonID{},
		orgs: map[string]ledger.OrganisationID{},
	}
	pool, err := pg.Open(t.Context(), pg.Config{URL: url, MaxConns: 8, AppName: "test", Role: pg.AppRole})
	w.must(err)
	t.Cleanup(pool.Close)
	w.pool = pool
	content := fstest.MapFS{}
	for name, text := range files {
		content[name] = &fstest.MapFile{Data: []byte(text)}
	}
	folder, err := registry.OpenFS(content)
	w.must(err)
	report, err := registry.Run(t.Context(), pool, folder, ledger.ImportRegister, meal.Import, access.Import, subscription.Import)
	if err != nil {
		t.Fatalf("import: %v %v", err, report.Problems)
	}
	for code, id := range query[ledger.PersonID](w, `SELECT code, id FROM ledger.person`) {
		w.people[code] = id
	}
	for code, id := range query[ledger.OrganisationID](w, `SELECT code, id FROM ledger.organisation`) {
		w.orgs[code] = id
	}
	// The API has a pool of its own, on which its statements are noted.
	config := pool.Config().Copy()
	config.ConnConfig.Tracer = w.trace
	traced, err := pgxpool.NewWithConfig(t.Context(), config)
	w.must(err)
	t.Cleanup(traced.Close)

	w.jobs, err = river.NewClient(riverpgxv5.New(pool), &river.Config{Schema: pg.RiverSchema})
	w.must(err)
	w.desk = delivery.NewDesk(w.jobs, func(phone.Number) []string { return []string{"box"} })
	w.desk.SMSPerDay = 30
	w.teller = notice.NewTeller(notice.Config{
		Pool: pool, River: w.jobs, Desk: w.desk, Log: slog.New(slog.DiscardHandler), Now: w.now,
		Metrics: notice.NewMetrics(prometheus.NewPedanticRegistry()),
	})
	t.Cleanup(w.teller.Close)
	key, err := push.NewKey()
	w.must(err)
	vapid, err := push.ParseKey(key)
	w.must(err)
	browsers, err := push.NewSender(push.Config{
		Key: vapid, Contact: "mailto:pass@example.org", Services: []string{"push.example.org"}, Log: slog.New(slog.DiscardHandler),
		Metrics: push.NewMetrics(prometheus.NewPedanticRegistry()), Now: w.now,
	})
	w.must(err)
	book := ledger.NewBook(w.jobs)
	canteen := meal.NewCanteen(book, w.jobs)
	w.intake = reader.NewIntake(reader.Config{
		Pool: pool, River: w.jobs, Recorder: door.NewRecorder(w.jobs), Canteen: canteen,
		Log: slog.New(slog.DiscardHandler), Metrics: reader.NewMetrics(prometheus.NewPedanticRegistry()), Now: w.now,
	})
	t.Cleanup(w.intake.Close)
	w.api, err = parent.New(parent.Config{
		Pool: traced, Read: read, River: w.jobs, Desk: w.desk, Book: book, Canteen: canteen, Push: browsers, Intake: w.intake,
		Log: slog.New(slog.NewTextHandler(w.logs, nil)), Metrics: parent.NewMetrics(prometheus.NewPedanticRegistry()), Now: w.now,
	})
	w.must(err)
	t.Cleanup(w.api.Close)
	workers := river.NewWorkers()
	w.api.RegisterWorkers(workers)
	w.teller.Register(workers)
	queues := parent.Queues()
	queues[river.QueueDefault] = river.QueueConfig{MaxWorkers: 4}
	working, err := river.NewClient(riverpgxv5.New(pool), &river.Config{
		Schema: pg.RiverSchema, Workers: workers, Queues: queues, FetchCooldown: 5 * time.Millisecond,
		Logger: slog.New(slog.DiscardHandler),
	})
	w.must(err)
	w.must(working.Start(context.WithoutCancel(t.Context())))
	t.Cleanup(func() { w.must(working.Stop(context.WithoutCancel(t.Context()))) })
	mux := http.NewServeMux()
	api := apidoc.New(mux, "test")
	w.api.Register(api)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	w.url = server.URL
	return w
}

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.at
}

// pass lets time go by.
func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at = w.at.Add(d)
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) exec(sql string, args ...any) {
	w.Helper()
	_, err := w.pool.Exec(w.Context(), sql, args...)
	w.must(err)
}

// query reads pairs.
func query[T any](w *world, sql string, args ...any) map[string]T {
	w.Helper()
	rows, err := w.pool.Query(w.Context(), sql, args...)
	w.must(err)
	pairs := map[string]T{}
	var name string
	var value T
	_, err = pgx.ForEachRow(rows, []any{&name, &value}, func() error { pairs[name] = value; return nil })
	w.must(err)
	return pairs
}

// one reads a single value.
func one[T any](w *world, sql string, args ...any) T {
	w.Helper()
	var value T
	w.must(w.pool.QueryRow(w.Context(), sql, args...).Scan(&value))
	return value
}

// eventually waits for what a job does.
func (w *world) eventually(what string, condition func() bool) {
	w.Helper()
	deadline := time.Now().Add(time.Minute)
	for !condition() {
		if time.Now().After(deadline) {
			w.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// texts are what waits to be sent to a phone, the oldest first.
func (w *world) texts(phone string) []string {
	w.Helper()
	rows, err := w.pool.Query(w.Context(), `
		SELECT body FROM delivery.delivery WHERE address = $1 AND state <> 'recalled' ORDER BY at, id`, strings.TrimPrefix(phone, "+"))
	w.must(err)
	texts, err := pgx.CollectRows(rows, pgx.RowTo[string])
	w.must(err)
	return texts
}

// reply is an answer of the API.
type reply struct {
	status int
	header http.Header
	body   string
}

// into reads the answer's JSON.
func (r reply) into(t testing.TB, document any) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.body), document); err != nil {
		t.Fatalf("%d %s: %v", r.status, r.body, err)
	}
}

// caller is somebody with or without a session.
type caller struct {
	*world
	token string
	staff string // who is at the tablet
}

// call sends a request; a body is JSON text, or anything to be made JSON.
func (c caller) call(method, path string, body any) reply {
	c.Helper()
	return c.send(c.request(method, path, body))
}

func (c caller) request(method, path string, body any) *http.Request {
	c.Helper()
	var content io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		content = strings.NewReader(b)
	default:
		data, err := json.Marshal(b)
		c.must(err)
		content = bytes.NewReader(data)
	}
	if !strings.HasPrefix(path, "/api/") {
		path = "/api/v1/parent" + path
	}
	request, err := http.NewRequestWithContext(c.Context(), method, c.url+path, content)
	c.must(err)
	if content != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	if c.staff != "" {
		request.Header.Set("Staff", c.staff)
	}
	return request
}

func (w *world) send(request *http.Request) reply {
	w.Helper()
	response, err := w.client.Do(request)
	w.must(err)
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	w.must(err)
	return reply{response.StatusCode, response.Header, string(content)}
}

// get reads a document that must be there.
func (c caller) get(path string, document any) {
	c.Helper()
	r := c.call(http.MethodGet, path, nil)
	if r.status != http.StatusOK {
		c.Fatalf("GET %s: %d %s", path, r.status, r.body)
	}
	r.into(c, document)
}

// want sends a request and checks the status.
func (c caller) want(status int, method, path string, body any) reply {
	c.Helper()
	r := c.call(method, path, body)
	if r.status != status {
		c.Errorf("%s %s: %d, want %d: %s", method, path, r.status, status, r.body)
	}
	return r
}

var sixDigits = regexp.MustCompile(`\b\d{6}\b`)

// askCode asks for a code for a phone and returns the request's name.
func (w *world) askCode(phone string) string {
	w.Helper()
	var answer parent.CodeAnswer
	caller{world: w}.want(http.StatusAccepted, http.MethodPost, "/code", map[string]string{"phone": phone}).into(w, &answer)
	return answer.Request
}

// codeOn waits for the next code on a phone, after n messages.
func (w *world) codeOn(phone string, n int) string {
	w.Helper()
	w.eventually("a code on a phone", func() bool { return len(w.texts(phone)) > n })
	return sixDigits.FindString(w.texts(phone)[n])
}

// signIn signs somebody in by the code that comes to the phone.
func (w *world) signIn(phone string) caller {
	w.Helper()
	before := len(w.texts(phone))
	request := w.askCode(phone)
	var answer parent.SessionAnswer
	caller{world: w}.want(http.StatusOK, http.MethodPost, "/session",
		map[string]string{"request": request, "code": w.codeOn(phone, before)}).into(w, &answer)
	return caller{world: w, token: answer.Token}
}

// path is a path under a child of the world.
func (w *world) path(child, rest string) string {
	return fmt.Sprintf("/children/%d%s", w.people[child], rest)
}

// tap lets a child pass a door now, and waits until it has been decided who is told.
func (w *world) tap(child string, direction door.Direction) {
	w.Helper()
	at := w.now()
	var event ledger.EventID
	w.must(pgx.BeginFunc(w.Context(), w.pool, func(tx pgx.Tx) error {
		ids, err := ledger.NextEventIDs(w.Context(), tx, 1)
		if err != nil {
			return err
		}
		event = ids[0]
		tap := door.Tap{
			Event: event, Device: 1, Person: w.people[child], Direction: direction, Kind: door.ByCard,
			At: at, RawAt: at, ReceivedAt: at,
		}
		if err := tx.QueryRow(w.Context(), `
			SELECT p.organisation_id, b.id FROM ledger.person p JOIN ledger.building b USING (organisation_id) WHERE p.id = $1`,
			tap.Person).Scan(&tap.Organisation, &tap.Building); err != nil {
			return err
		}
		_, err = door.NewRecorder(w.jobs).Record(w.Context(), tx, at, []door.Tap{tap})
		return err
	}))
	w.eventually("the notices of a pass", func() bool {
		return one[int](w, `SELECT count(*) FROM notice.notice WHERE event_id = $1`, event) > 0
	})
}

// pay puts money on a child's account.
func (w *world) pay(child string, amount money.Amount) {
	w.Helper()
	w.must(pgx.BeginFunc(w.Context(), w.pool, func(tx pgx.Tx) error {
		bank, err := ledger.SystemAccounts(w.Context(), tx, ledger.SystemAccount{Kind: ledger.Bank, Owner: "mkb"})
		if err != nil {
			return err
		}
		wallets, err := ledger.Balances(w.Context(), tx, []ledger.PersonID{w.people[child]})
		if err != nil {
			return err
		}
		events, err := ledger.NextEventIDs(w.Context(), tx, 1)
		if err != nil {
			return err
		}
		verdicts, err := ledger.NewBook(w.jobs).Post(w.Context(), tx, []ledger.Entry{{
			Event: events[0], Kind: ledger.TopUp, Debit: bank[0], Credit: wallets[w.people[child]].Account, Amount: amount,
			Source: "bank/mkb", ExternalID: fmt.Sprint(events[0]), OccurredAt: w.now(),
		}})
		if err == nil && verdicts[0].Code != ledger.CodePosted {
			err = fmt.Errorf("top up: %+v", verdicts[0])
		}
		return err
	}))
}

// sell sells something to a child.
func (w *world) sell(sales ...meal.Sale) {
	w.Helper()
	w.must(pgx.BeginFunc(w.Context(), w.pool, func(tx pgx.Tx) error {
		events, err := ledger.NextEventIDs(w.Context(), tx, len(sales))
		if err != nil {
			return err
		}
		for i := range sales {
			sales[i].Event, sales[i].Device, sales[i].Seq, sales[i].At = events[i], 1, int64(events[i]), w.now()
		}
		book := ledger.NewBook(w.jobs)
		verdicts, err := meal.NewCanteen(book, w.jobs).Sell(w.Context(), tx, sales)
		for _, v := range verdicts {
			if err == nil && v.Code != meal.CodeSold {
				err = fmt.Errorf("sell: %+v", v)
			}
		}
		return err
	}))
}

// at is somebody of the staff at a tablet.
func (c caller) at(staff string) caller {
	c.staff = staff
	return c
}

// tablet makes a key of a device in a building.
func (w *world) tablet(kind reader.DeviceKind, building string) caller {
	w.Helper()
	_, key, err := reader.AddDevice(w.Context(), w.pool,
		reader.NewDevice{Name: string(kind) + building, Kind: kind, Building: building}, w.now())
	w.must(err)
	return caller{world: w, token: key.Reveal()}
}
