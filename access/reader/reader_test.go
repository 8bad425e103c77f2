package reader_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"zvonok/access"
	"zvonok/access/door"
	"zvonok/access/reader"
	"zvonok/access/reader/apidoc"
	"zvonok/ledger"
	"zvonok/ledger/meal"
	"zvonok/ledger/money"
	"zvonok/ledger/pg"
	"zvonok/ledger/pg/pgtest"
)

var moscow = time.FixedZone("MSK", 3*60*60)

// morning is when tests happen: a Monday, 08:15:04 in Moscow.
var morning = time.Date(2026, 11, 23, 8, 15, 4, 0, moscow)

// site is a school with a server for its devices.
type site struct {
	t            testing.TB
	pool         *pgxpool.Pool
	url          string
	intake       *reader.Intake
	jobs         *river.Client[pgx.Tx]
	now          time.Time
	registry     *prometheus.Registry
	organisation ledger.OrganisationID
	people       []ledger.PersonID
	door         device
}

// device is a device with its key, and how it talks.
type device struct {
	*site
	id  reader.DeviceID
	key string
}

// uid is the card of the n-th person.
func uid(n int) string { return fmt.Sprintf("9A3F%04X", n) }

// newSite makes a school of some people, each with a card, and one door.
func newSite(t testing.TB, people int) *site {
	t.Helper()
	return siteOn(t, pgtest.New(t), people)
}

func siteOn(t testing.TB, pool *pgxpool.Pool, people int) *site {
	t.Helper()
	s := &site{t: t, pool: pool, now: morning, registry: prometheus.NewPedanticRegistry()}
	s.organisation, s.people = s.school("o-1", "school", people)
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{Schema: pg.RiverSchema})
	must(t, err)
	s.jobs = client
	s.intake = reader.NewIntake(reader.Config{
		Pool: pool, River: client, Recorder: door.NewRecorder(client), Canteen: meal.NewCanteen(ledger.NewBook(client), client),
		Log: slog.New(slog.DiscardHandler), Metrics: reader.NewMetrics(s.registry),
		Now: func() time.Time { return s.now },
	})
	t.Cleanup(s.intake.Close)
	mux := http.NewServeMux()
	s.intake.Register(apidoc.New(mux, "test"))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	s.url = server.URL
	s.door = s.device("door 1", reader.Door, "o-1-b")
	return s
}

// school adds an organisation "code" with the building "code-b" and people
// "code-p1" and so on, who hold the cards uid(1) and so on.
func (s *site) school(code, kind string, people int) (ledger.OrganisationID, []ledger.PersonID) {
	s.t.Helper()
	var id ledger.OrganisationID
	must(s.t, s.pool.QueryRow(s.t.Context(), `
		INSERT INTO ledger.organisation (code, kind, name, short_name, time_zone)
		VALUES ($1, $2, 'Школа', 'Школа', 'Europe/Moscow') RETURNING id`, code, kind).Scan(&id))
	s.exec(`INSERT INTO ledger.building (code, organisation_id, address) VALUES ($1 || '-b', $2, 'Улица, 1')`, code, id)
	ids := make([]ledger.PersonID, people)
	for i := range ids {
		must(s.t, s.pool.QueryRow(s.t.Context(), `
			INSERT INTO ledger.person (code, organisation_id, kind, family_name, given_name, group_name)
			VALUES ($1, $2, 'pupil', 'Петрова', 'Маша', '5 «А»') RETURNING id`,
			fmt.Sprintf("%s-p%d", code, i+1), id).Scan(&ids[i]))
		s.card(id, uid(i+1), ids[i], 0)
	}
	return id, ids
}

// card gives a card to a person or to a companion.
func (s *site) card(organisation ledger.OrganisationID, uid string, person ledger.PersonID, companion access.RepresentativeID) {
	s.t.Helper()
	s.exec(`
		INSERT INTO access.card (organisation_id, uid, kind, person_id, representative_id, state, issued_at)
		VALUES ($1, $2, 'own', nullif($3::bigint, 0), nullif($4::bigint, 0), 'active', '2026-01-01')`,
		organisation, uid, person, companion)
}

// wallet gives a person a wallet with some money.
func (s *site) wallet(person ledger.PersonID, amount money.Amount) {
	s.t.Helper()
	number, err := ledger.NewAccountNumber("1", int64(person))
	must(s.t, err)
	must(s.t, pgx.BeginFunc(s.t.Context(), s.pool, func(tx pgx.Tx) error {
		err := ledger.OpenWallets(s.t.Context(), tx, []ledger.WalletOpening{{Person: person, Number: number}})
		if err != nil || amount == 0 {
			return err
		}
		ids, err := ledger.SystemAccounts(s.t.Context(), tx, ledger.SystemAccount{Kind: ledger.Bank, Owner: "test"})
		if err != nil {
			return err
		}
		wallets, err := ledger.Balances(s.t.Context(), tx, []ledger.PersonID{person})
		if err != nil {
			return err
		}
		events, err := ledger.NextEventIDs(s.t.Context(), tx, 1)
		if err != nil {
			return err
		}
		verdicts, err := ledger.NewBook(s.jobs).Post(s.t.Context(), tx, []ledger.Entry{{
			Event: events[0], Kind: ledger.TopUp, Debit: ids[0], Credit: wallets[person].Account, Amount: amount,
			Source: "test", ExternalID: number, OccurredAt: s.now,
		}})
		if err == nil && verdicts[0].Code != ledger.CodePosted {
			err = fmt.Errorf("top up: %+v", verdicts[0])
		}
		return err
	}))
}

// balance reads a person's money.
func (s *site) balance(person ledger.PersonID) string {
	s.t.Helper()
	balances, err := ledger.Balances(s.t.Context(), s.pool, []ledger.PersonID{person})
	must(s.t, err)
	return balances[person].Posted.String()
}

func (s *site) device(name string, kind reader.DeviceKind, building string) device {
	s.t.Helper()
	added, key, err := reader.AddDevice(s.t.Context(), s.pool,
		reader.NewDevice{Name: name, Kind: kind, Building: building}, s.now)
	must(s.t, err)
	return device{s, added.ID, key.Reveal()}
}

func (s *site) exec(sql string, args ...any) {
	s.t.Helper()
	_, err := s.pool.Exec(s.t.Context(), sql, args...)
	must(s.t, err)
}

// count runs a query of one number.
func (s *site) count(sql string, args ...any) int {
	s.t.Helper()
	var n int
	must(s.t, s.pool.QueryRow(s.t.Context(), sql, args...).Scan(&n))
	return n
}

// metric returns the sum of a counter over the label values given as name, value pairs.
func (s *site) metric(name string, labels ...string) float64 {
	s.t.Helper()
	families, err := s.registry.Gather()
	must(s.t, err)
	var sum float64
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
	metrics:
		for _, m := range family.GetMetric() {
			for i := 0; i < len(labels); i += 2 {
				for _, label := range m.GetLabel() {
					if label.GetName() == labels[i] && label.GetValue() != labels[i+1] {
						continue metrics
					}
				}
			}
			sum += m.GetCounter().GetValue()
		}
	}
	return sum
}

// reply is an answer to a device.
type reply struct {
	status       int
	header       http.Header
	body         string
	Acknowledged []int64
	Rejected     []reader.Rejection
	Errors       []struct{ Location string }
}

// code returns the rejection code of a number, or "".
func (r reply) code(seq int64) reader.Code {
	for _, rejection := range r.Rejected {
		if rejection.Seq == seq {
			return rejection.Code
		}
	}
	return ""
}

// send posts a body with the device's key.
func (d device) send(path, body string) reply {
	d.t.Helper()
	r, err := d.post(path, []byte(body))
	must(d.t, err)
	return r
}

func (d device) post(path string, body []byte) (reply, error) {
	request, err := http.NewRequestWithContext(d.t.Context(), http.MethodPost, d.url+path, bytes.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	request.Header.Set("Authorization", "Bearer "+d.key)
	return ask(request)
}

func ask(request *http.Request) (reply, error) {
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return reply{}, err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		return reply{}, err
	}
	r := reply{status: response.StatusCode, header: response.Header, body: string(content)}
	if len(content) > 0 && content[0] == '{' {
		err = json.Unmarshal(content, &r)
	}
	return r, err
}

// upload posts events with the right time.
func (d device) upload(events ...string) reply {
	d.t.Helper()
	return d.uploadAt(d.now, events...)
}

// uploadAt posts events from a device whose clock shows sentAt.
func (d device) uploadAt(sentAt time.Time, events ...string) reply {
	d.t.Helper()
	return d.send("/api/v1/events", document(sentAt, events...))
}

func document(sentAt time.Time, events ...string) string {
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"sent_at":%q,"events":[`, sentAt.Format(time.RFC3339))
	for i, event := range events {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(event)
	}
	b.WriteString("]}")
	return b.String()
}

// pass is a pass of the n-th person at a moment.
func pass(seq, person int, direction string, at time.Time) string {
	return fmt.Sprintf(`{"seq":%d,"type":"pass","card":%q,"direction":%q,"at":%q}`,
		seq, uid(person), direction, at.Format(time.RFC3339))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
