package reader_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/access/reader"
	"zvonok/ledger"
	"zvonok/ledger/meal"
	"zvonok/ledger/money"
)

// sale is a sale to the n-th person.
func sale(seq, person int, kind, meal, total string, at time.Time) string {
	return fmt.Sprintf(`{"seq":%d,"type":"sale","card":%q,"kind":%q,"meal":%q,"total":%q,"at":%q}`,
		seq, uid(person), kind, meal, total, at.Format(time.RFC3339))
}

func reversal(seq, of int, at time.Time) string {
	return fmt.Sprintf(`{"seq":%d,"type":"reversal","of":%d,"at":%q}`, seq, of, at.Format(time.RFC3339))
}

// newTill makes a school of two with 100 roubles each, and a till.
func newTill(t *testing.T) (*site, device) {
	t.Helper()
	s := newSite(t, 2)
	for _, person := range s.people {
		s.wallet(person, 100_00)
	}
	s.exec(`UPDATE ledger.person SET benefit = 'breakfast'`)
	s.exec(`DELETE FROM ledger.benefit_past`) // it was so all along
	return s, s.device("till", reader.Till, "o-1-b")
}

func TestASaleIsBookedOnceAndTold(t *testing.T) {
	t.Parallel()
	s, till := newTill(t)
	event := fmt.Sprintf(`{"seq":104,"type":"sale","card":%q,"kind":"buffet","total":"70.00","at":%q,
		"items":[{"code":"b12","name":"Булочка","quantity":2,"price":"35.00"}]}`, uid(1), morning.Format(time.RFC3339))
	for range 3 {
		if r := till.upload(event); !slices.Equal(r.Acknowledged, []int64{104}) {
			t.Fatalf("answer %s", r.body)
		}
	}
	if balance := s.balance(s.people[0]); balance != "30.00" {
		t.Errorf("balance %s", balance)
	}
	if n := s.count(`SELECT count(*) FROM meal.sale WHERE offline AND total = 7000 AND items @> '[{"name":"Булочка"}]'`); n != 1 {
		t.Errorf("%d sales", n)
	}
	if n := s.count(`SELECT count(*) FROM river.river_job WHERE kind = 'meal_sold'`); n != 1 {
		t.Errorf("%d jobs", n)
	}
}

// D11: a subsidised meal touches no account, and is served once.
func TestASubsidisedMealIsTheCitys(t *testing.T) {
	t.Parallel()
	s, till := newTill(t)
	r := till.upload(sale(1, 1, "subsidised", "breakfast", "95.00", morning), sale(2, 1, "subsidised", "breakfast", "95.00", morning),
		sale(3, 1, "subsidised", "lunch", "95.00", morning))
	if !slices.Equal(r.Acknowledged, []int64{1}) || r.code(2) != reader.AlreadyServed || r.code(3) != reader.NotEntitled {
		t.Errorf("answer %s", r.body)
	}
	if balance := s.balance(s.people[0]); balance != "100.00" {
		t.Errorf("balance %s", balance)
	}
	if n := s.count(`SELECT count(*) FROM reader.event WHERE state = 2`); n != 2 {
		t.Errorf("%d events stand as rejected", n)
	}
	again := till.upload(sale(2, 1, "subsidised", "breakfast", "95.00", morning))
	if again.code(2) != reader.AlreadyServed {
		t.Errorf("the repeat: %s", again.body)
	}
}

// A till enters a subsidised meal with a mistake, takes it back and enters it
// again. In whatever order and pieces that comes, the city pays for the second.
func TestASubsidisedMealThatWasEnteredAgainIsPaid(t *testing.T) {
	t.Parallel()
	wrong, back, right := sale(1, 1, "subsidised", "breakfast", "59.00", morning), reversal(2, 1, morning),
		sale(3, 1, "subsidised", "breakfast", "95.00", morning.Add(time.Minute))
	settle := func(s *site) {
		list, err := reader.Quarantine(s.t.Context(), s.pool, s.organisation, 10)
		must(s.t, err)
		if len(list) != 1 || list[0].Seq != 3 || list[0].Code != reader.AlreadyServed {
			s.t.Fatalf("quarantine %+v", list)
		}
		must(s.t, reader.SettleQuarantined(s.t.Context(), s.pool, s.organisation, list[0].Event, access.ByStaff("staff-1"), s.now))
	}
	for _, test := range []struct {
		name     string
		uploads  [][]string
		rejected int // of these uploads
		before   func(*site)
		last     string // uploaded after that
		want     int
	}{
		{"in one upload", [][]string{{wrong, back, right}}, 0, nil, right, 95_00},
		{"in one upload, shuffled", [][]string{{right, back, wrong}}, 0, nil, right, 95_00},
		{"one by one", [][]string{{wrong}, {back}, {right}}, 0, nil, right, 95_00},
		{"the reversal first", [][]string{{back}, {right}, {wrong}}, 0, nil, right, 95_00},
		{"the reversal last", [][]string{{wrong}, {right}}, 1, nil, back, 95_00},
		{"everything twice", [][]string{{wrong}, {right}, {wrong, right}}, 2, nil, back, 95_00},
		{"staff have settled it by hand", [][]string{{wrong}, {right}}, 1, settle, back, 0},
		{"both are taken back", [][]string{{wrong}, {right}, {reversal(4, 3, morning)}}, 2, nil, back, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s, till := newTill(t)
			rejected := 0
			for _, events := range test.uploads {
				rejected += len(till.upload(events...).Rejected)
			}
			if rejected != test.rejected {
				t.Errorf("%d events are rejected, want %d", rejected, test.rejected)
			}
			if test.before != nil {
				test.before(s)
			}
			if r := till.upload(test.last); len(r.Acknowledged) != 1 {
				t.Errorf("the last one is answered %s", r.body)
			}
			paid := s.count(`SELECT coalesce(sum(total), 0) FROM meal.sale WHERE booked = 'budget' AND reversed_by IS NULL`)
			if paid != test.want {
				t.Errorf("the city pays %d, want %d", paid, test.want)
			}
			r := till.upload(right)
			if paid != 0 && len(r.Acknowledged) != 1 {
				t.Errorf("the meal that is paid is answered %s", r.body)
			}
			if open := s.count(`SELECT count(*) FROM reader.quarantine WHERE settled_at IS NULL AND code = 'already_served'`); paid != 0 && open != 0 {
				t.Errorf("%d meals that are paid are in quarantine", open)
			}
			report, err := ledger.Verify(t.Context(), s.pool)
			must(t, err)
			if !report.OK() {
				t.Errorf("%v", report.Violations)
			}
		})
	}
}

// Fault row 46: two tills spend the last money offline; both sales are kept.
func TestTwoTillsSpendTheLastMoneyOffline(t *testing.T) {
	t.Parallel()
	s, till := newTill(t)
	tills := []device{till, s.device("till 2", reader.Till, "o-1-b")}
	var all sync.WaitGroup
	for n, till := range tills {
		all.Go(func() {
			r, err := till.post("/api/v1/events", []byte(document(morning, sale(n, 1, "buffet", "", "80.00", morning))))
			if err != nil || len(r.Acknowledged) != 1 {
				t.Errorf("till %d: %s, %v", n, r.body, err)
			}
		})
	}
	all.Wait()
	if balance := s.balance(s.people[0]); balance != "-60.00" {
		t.Errorf("balance %s", balance)
	}
}

// T8 at the till: a day's sales and returns that come late, twice, shuffled and after
// the day was closed lead to the balances of those that come in order.
func TestALateShuffledPackOfATillLeadsToTheSameMoney(t *testing.T) {
	t.Parallel()
	var pack []string
	for seq := range 12 {
		pack = append(pack, sale(seq, 1+seq%2, "buffet", "", fmt.Sprintf("%d.00", 10+seq), morning.Add(-time.Hour+time.Duration(seq)*time.Minute)))
	}
	// A breakfast of a mistaken price is taken back and entered again; another one too, and that is given up.
	pack = append(pack, reversal(12, 3, morning), reversal(13, 8, morning), sale(14, 1, "subsidised", "breakfast", "59.00", morning),
		reversal(15, 14, morning), sale(16, 1, "subsidised", "breakfast", "95.00", morning),
		sale(17, 2, "subsidised", "breakfast", "59.00", morning), reversal(18, 17, morning),
		sale(19, 2, "subsidised", "breakfast", "95.00", morning), reversal(20, 19, morning))
	var want string
	for seed := range uint64(4) {
		s, till := newTill(t)
		random := rand.New(rand.NewPCG(seed, 8))
		upload := func(events []string) {
			t.Helper()
			for _, seq := range till.upload(events...).Rejected {
				// A breakfast waits until the one that was served in its place is taken back, or is taken back itself.
				if seq.Seq < 14 {
					t.Errorf("seed %d: %d is rejected: %s %s", seed, seq.Seq, seq.Code, seq.Message)
				}
			}
		}
		order := random.Perm(len(pack))
		if seed == 0 {
			slices.Sort(order)
		}
		var first, last []string
		for i, place := range order {
			if i < len(order)/2 {
				first = append(first, pack[place])
			} else {
				last = append(last, pack[place])
			}
		}
		upload(first)
		if seed > 0 {
			upload(first)
			var booked time.Time
			must(t, s.pool.QueryRow(t.Context(), `SELECT max(booking_day) FROM ledger.posting`).Scan(&booked))
			_, err := ledger.CloseDays(t.Context(), s.pool, booked, "test")
			must(t, err)
		}
		upload(last)
		if seed > 0 {
			slices.Reverse(last)
			upload(last)
			upload(append(last, first...))
			if n := s.count(`SELECT count(*) FROM ledger.posting WHERE late_from IS NOT NULL`); n == 0 {
				t.Errorf("seed %d: nothing is noted as late", seed)
			}
		}
		got := fmt.Sprint(s.balance(s.people[0]), " ", s.balance(s.people[1]), " sales that stand ",
			s.count(`SELECT count(*) FROM meal.sale WHERE reversed_by IS NULL`), // one whose return came first was never booked
			" of the city ", s.count(`SELECT coalesce(sum(total), 0) FROM meal.sale WHERE kind = 'subsidised' AND reversed_by IS NULL`))
		if want == "" {
			want = got
		}
		if got != want {
			t.Errorf("seed %d: %s, in order %s", seed, got, want)
		}
		report, err := ledger.Verify(t.Context(), s.pool)
		must(t, err)
		if !report.OK() {
			t.Errorf("seed %d: %v", seed, report.Violations)
		}
	}
}

// Fault row 33: the balance effect of a sale is kept whatever the clock says.
func TestASaleOfAnImpossibleTimeIsBookedNow(t *testing.T) {
	t.Parallel()
	s, till := newTill(t)
	for seq, at := range []string{"1970-01-01T00:00:05Z", "2099-01-01T00:00:05Z"} {
		r := till.upload(fmt.Sprintf(`{"seq":%d,"type":"sale","card":%q,"kind":"buffet","total":"10.00","at":%q}`, seq, uid(1), at))
		if !slices.Equal(r.Acknowledged, []int64{int64(seq)}) {
			t.Errorf("%s: answer %s", at, r.body)
		}
	}
	if balance := s.balance(s.people[0]); balance != "80.00" {
		t.Errorf("balance %s", balance)
	}
	if n := s.count(`SELECT count(*) FROM meal.sale WHERE at = $1`, morning); n != 2 {
		t.Errorf("%d sales count as of now", n)
	}
}

func TestAReversalTakesASaleBackInAnyOrder(t *testing.T) {
	t.Parallel()
	bought, taken := sale(104, 1, "buffet", "", "70.00", morning.Add(-time.Minute)), reversal(107, 104, morning)
	for _, test := range []struct {
		name    string
		uploads [][]string
	}{
		{"in one upload", [][]string{{bought, taken}}},
		{"in one upload, the reversal first", [][]string{{taken, bought}}},
		{"later", [][]string{{bought}, {taken}}},
		{"before the sale has come", [][]string{{taken}, {bought}}},
		{"everything repeated", [][]string{{taken}, {taken, bought}, {bought}, {taken}, {bought, taken}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s, till := newTill(t)
			for _, events := range test.uploads {
				if r := till.upload(events...); len(r.Acknowledged) != len(events) || len(r.Rejected) != 0 {
					t.Errorf("answer %s", r.body)
				}
			}
			if balance := s.balance(s.people[0]); balance != "100.00" {
				t.Errorf("balance %s", balance)
			}
		})
	}
}

func TestASaleAndItsReversalAtOnceEndInNothingSpent(t *testing.T) {
	t.Parallel()
	s, till := newTill(t)
	var all sync.WaitGroup
	for n := range 20 {
		for _, event := range []string{
			sale(2*n, 1, "buffet", "", "5.00", morning), reversal(2*n+1, 2*n, morning),
		} {
			all.Go(func() {
				r, err := till.post("/api/v1/events", []byte(document(morning, event)))
				if err != nil || len(r.Acknowledged) != 1 {
					t.Errorf("answer %s, %v", r.body, err)
				}
			})
		}
	}
	all.Wait()
	if balance := s.balance(s.people[0]); balance != "100.00" {
		t.Errorf("balance %s", balance)
	}
}

func TestWhatCannotBeReversedIsRejected(t *testing.T) {
	t.Parallel()
	s, till := newTill(t)
	till.upload(sale(1, 1, "buffet", "", "70.00", morning), pass(2, 1, "in", morning), reversal(3, 1, morning),
		sale(4, 1, "buffet", "", "-1.00", morning), reversal(5, 90, morning))
	r := till.upload(reversal(11, 1, morning), reversal(12, 2, morning), reversal(13, 3, morning), reversal(14, 4, morning),
		reversal(15, 90, morning), reversal(16, 91, morning), reversal(17, 91, morning))
	for seq, want := range map[int64]reader.Code{
		11: reader.AlreadyReversed, 12: reader.NoSale, 13: reader.NoSale, 14: reader.NoSale, 15: reader.AlreadyReversed,
		16: "", 17: reader.AlreadyReversed,
	} {
		if r.code(seq) != want {
			t.Errorf("number %d: %q, want %q", seq, r.code(seq), want)
		}
	}
	if balance := s.balance(s.people[0]); balance != "100.00" {
		t.Errorf("balance %s", balance)
	}
	// Another device's numbers are its own.
	other := s.device("till 2", reader.Till, "o-1-b")
	other.upload(sale(1, 1, "buffet", "", "70.00", morning))
	till.upload(reversal(20, 1, morning))
	if balance := s.balance(s.people[0]); balance != "30.00" {
		t.Errorf("balance %s after another till's sale", balance)
	}
}

// A reversal of a mistaken number must not swallow somebody's entry.
func TestAPassWhoseNumberWasReversedByMistakeHappens(t *testing.T) {
	t.Parallel()
	s, till := newTill(t)
	till.upload(reversal(1, 2, morning))
	for range 2 {
		if r := till.upload(pass(2, 1, "in", morning)); !slices.Equal(r.Acknowledged, []int64{2}) {
			t.Errorf("answer %s", r.body)
		}
	}
	if n := s.count(`SELECT count(*) FROM door.pass`); n != 1 {
		t.Errorf("%d passes", n)
	}
	if n := s.count(`SELECT count(*) FROM river.river_job WHERE kind = 'door_passed'`); n != 1 {
		t.Errorf("%d jobs", n)
	}
}

// The number of the first upload stands for its content; the reversal in
// conflict with it must not cancel anything.
func TestAReversalInConflictCancelsNothing(t *testing.T) {
	t.Parallel()
	s, till := newTill(t)
	till.upload(pass(1, 1, "in", morning))
	if r := till.upload(reversal(1, 2, morning)); r.code(1) != reader.Conflict {
		t.Errorf("answer %s", r.body)
	}
	till.upload(sale(2, 1, "buffet", "", "70.00", morning))
	if balance := s.balance(s.people[0]); balance != "30.00" {
		t.Errorf("balance %s", balance)
	}
}

// The example of the contract, in one upload.
func TestTheUploadOfTheContract(t *testing.T) {
	t.Parallel()
	s, till := newTill(t)
	s.exec(`UPDATE ledger.person SET code = 'p-17' WHERE id = $1`, s.people[1])
	s.exec(`UPDATE access.card SET uid = '04A1B2C3D4E580' WHERE person_id = $1`, s.people[1])
	s.exec(`UPDATE access.card SET uid = '9A3F105C' WHERE person_id = $1`, s.people[0])
	r := till.send("/api/v1/events", `{"sent_at":"2026-11-23T08:15:04+03:00","events":[
  {"seq":101,"type":"pass","card":"9A3F105C","direction":"in","at":"2026-11-23T08:15:03+03:00"},
  {"seq":102,"type":"pass","card":"04A1B2C3D4E580","direction":"out","companion_card":"9A3F1055","at":"2026-11-23T08:15:03+03:00"},
  {"seq":103,"type":"admitted","person":"p-17","direction":"in","by":"staff-3","at":"2026-11-23T08:15:03+03:00"},
  {"seq":104,"type":"sale","card":"9A3F105C","kind":"buffet","items":[{"code":"b12","name":"Булочка","quantity":2,"price":"35.00"}],"total":"70.00","at":"2026-11-23T08:15:03+03:00"},
  {"seq":105,"type":"sale","card":"9A3F105C","kind":"hot","meal":"lunch","total":"110.00","at":"2026-11-23T08:15:03+03:00"},
  {"seq":106,"type":"sale","card":"9A3F105C","kind":"subsidised","meal":"breakfast","total":"95.00","at":"2026-11-23T08:15:03+03:00"},
  {"seq":107,"type":"reversal","of":104,"at":"2026-11-23T08:15:03+03:00"},
  {"seq":108,"type":"denied","card":"FFFFFFFF","reason":"unknown","at":"2026-11-23T08:15:03+03:00"}]}`)
	if !slices.Equal(r.Acknowledged, []int64{101, 102, 103, 104, 105, 106, 107, 108}) || len(r.Rejected) != 0 {
		t.Fatalf("answer %s", r.body)
	}
	if balance := s.balance(s.people[0]); balance != "-10.00" {
		t.Errorf("balance %s", balance)
	}
}

// ask posts a question.
func (d device) ask(question string) (reader.Decision, reply) {
	d.t.Helper()
	r := d.send("/api/v1/authorize", question)
	var decision reader.Decision
	must(d.t, json.Unmarshal([]byte(r.body), &decision))
	return decision, r
}

func TestADoorAsksWhetherACardMayPass(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	s.oddCards()
	for _, test := range []struct {
		name, card string
		allow      bool
		reason     reader.Reason
		person     string
	}{
		{"a pupil's card", uid(1), true, "", "Петрова М."},
		{"the same, written differently", strings.ToLower(uid(1)), true, "", "Петрова М."},
		{"a card of nobody", "FFFFFFFF", false, "unknown_card", ""},
		{"a card that cannot be", "?", false, "unknown_card", ""},
		{"a card of another organisation", uid(300), false, "unknown_card", ""},
		{"a lost card", uid(100), false, "card_blocked", ""},
		{"a card whose time is over", uid(102), false, "card_expired", ""},
		{"a companion alone", uid(200), false, "companion_alone", ""},
	} {
		decision, r := s.door.ask(fmt.Sprintf(`{"card":%q,"direction":"in"}`, test.card))
		if r.status != http.StatusOK || decision.Allow != test.allow || decision.Reason != test.reason {
			t.Errorf("%s: %d %s", test.name, r.status, r.body)
		}
		if name := ""; decision.Person != nil {
			name = decision.Person.Name
			if name != test.person {
				t.Errorf("%s: it names %q", test.name, name)
			}
		} else if test.person != "" {
			t.Errorf("%s: it names nobody", test.name)
		}
	}
	if r := s.door.send("/api/v1/authorize", fmt.Sprintf(`{"card":%q,"direction":"in"}`, uid(1))); !strings.Contains(r.body, `"reason":""`) ||
		!strings.Contains(r.body, `"photo_url":""`) {
		t.Errorf("the answer lacks what the contract names: %s", r.body)
	}
}

// Issue 6, item 1: a block reaches online decisions at once.
func TestABlockReachesTheNextDecision(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	question := fmt.Sprintf(`{"card":%q,"direction":"in"}`, uid(1))
	if decision, _ := s.door.ask(question); !decision.Allow {
		t.Fatal("refused")
	}
	s.exec(`UPDATE access.card SET state = 'blocked_lost', blocked_at = $1`, s.now)
	if decision, _ := s.door.ask(question); decision.Allow || decision.Reason != "card_blocked" {
		t.Errorf("after the loss: %+v", decision)
	}
}

// D10: a pupil's own card never opens the exit of a kindergarten.
func TestAKindergartenOpensTheExitToListedCompanionsOnly(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	garden, children := s.school("k-1", "kindergarten", 1)
	var staff ledger.PersonID
	must(t, s.pool.QueryRow(t.Context(), `
		INSERT INTO ledger.person (code, organisation_id, kind, family_name, given_name)
		VALUES ('staff-1', $1, 'staff', 'Орлова', 'Анна') RETURNING id`, garden).Scan(&staff))
	s.card(garden, uid(50), staff, 0)
	for n, listed := range map[int]bool{200: true, 201: false} {
		var companion int64
		must(t, s.pool.QueryRow(t.Context(), `
			INSERT INTO access.representative (phone, family_name, given_name) VALUES ($1, 'Сидорова', 'Ольга')
			RETURNING id`, fmt.Sprintf("790000000%d", n)).Scan(&companion))
		s.exec(`INSERT INTO access.card (organisation_id, uid, kind, representative_id, state, issued_at)
		        VALUES ($1, $2, 'own', $3, 'active', '2026-01-01')`, garden, uid(n), companion)
		if listed {
			s.exec(`INSERT INTO access.guardian (child_id, representative_id, role, since)
			        VALUES ($1, $2, 'companion', '2026-01-01')`, children[0], companion)
		}
	}
	gate := s.device("gate", reader.Door, "k-1-b")
	for _, test := range []struct {
		name, question string
		allow          bool
		reason         reader.Reason
	}{
		{"coming alone", `{"card":"` + uid(1) + `","direction":"in"}`, true, ""},
		{"leaving alone", `{"card":"` + uid(1) + `","direction":"out"}`, false, "companion_required"},
		{"leaving with a listed companion", `{"card":"` + uid(1) + `","companion_card":"` + uid(200) + `","direction":"out"}`, true, ""},
		{"leaving with somebody else", `{"card":"` + uid(1) + `","companion_card":"` + uid(201) + `","direction":"out"}`, false, "companion_unlisted"},
		{"leaving with a card of nobody", `{"card":"` + uid(1) + `","companion_card":"?","direction":"out"}`, false, "companion_unlisted"},
		{"staff leaving", `{"card":"` + uid(50) + `","direction":"out"}`, true, ""},
	} {
		if decision, r := gate.ask(test.question); decision.Allow != test.allow || decision.Reason != test.reason {
			t.Errorf("%s: %s", test.name, r.body)
		}
	}
}

func TestATillAsksWhetherAPurchaseIsPossible(t *testing.T) {
	t.Parallel()
	s, till := newTill(t)
	limit := money.Amount(50_00)
	must(t, pgx.BeginFunc(t.Context(), s.pool, func(tx pgx.Tx) error {
		if err := meal.SetLimit(t.Context(), tx, s.people[1], &limit, 1, s.now); err != nil {
			return err
		}
		return meal.SetBans(t.Context(), tx, s.people[1], []meal.Ban{{Kind: meal.BanDish, Value: "кола"}, {Kind: meal.BanAllergen, Value: "молоко"}}, 1, s.now)
	}))
	dish := "Каша вязкая молочная из риса и пшена с маслом сливочным, сахаром и кусочками свежих яблок"
	s.exec(`INSERT INTO meal.menu (organisation_id, day, meal, dish, allergens, price)
	        SELECT organisation_id, $2, 'lunch', $3, '{молоко}', 2000 FROM ledger.person WHERE id = $1`, s.people[1], s.now, dish)
	for _, test := range []struct{ name, question, want string }{
		{
			"enough money", `{"card":"` + uid(1) + `","kind":"buffet","total":"70.00"}`,
			`{"allow":true,"person":{"name":"Петрова М.","photo_url":""},"reason":"","balance":"100.00"}`,
		},
		{
			"not enough money", `{"card":"` + uid(1) + `","kind":"buffet","total":"170.00"}`,
			`{"allow":false,"person":{"name":"Петрова М.","photo_url":""},"reason":"not_enough","balance":"100.00"}`,
		},
		{
			"a hot meal on debt", `{"card":"` + uid(1) + `","kind":"hot","meal":"lunch","total":"170.00"}`,
			`{"allow":true,"person":{"name":"Петрова М.","photo_url":""},"reason":"","balance":"100.00"}`,
		},
		{
			"over the parents' limit", `{"card":"` + uid(2) + `","kind":"buffet","total":"70.00"}`,
			`{"allow":false,"person":{"name":"Петрова М.","photo_url":""},"reason":"over_limit","balance":"100.00","limit_left":"50.00"}`,
		},
		{
			"a banned item", `{"card":"` + uid(2) + `","kind":"buffet","total":"20.00","items":[{"code":"c","name":"Кола","quantity":1,"price":"20.00"}]}`,
			`{"allow":false,"person":{"name":"Петрова М.","photo_url":""},"reason":"banned","balance":"100.00","limit_left":"50.00","banned":[{"code":"c","name":"Кола","quantity":1,"price":"20.00"}]}`,
		},
		{
			// A menu's dish has up to 200 characters, and a till's spaces may be any.
			"an item with a long name whose menu declares a banned allergen",
			`{"card":"` + uid(2) + `","kind":"buffet","total":"20.00","items":[{"name":"` + strings.ReplaceAll(dish, " ", " \u00a0") + `","quantity":1,"price":"20.00"}]}`,
			`{"allow":false,"person":{"name":"Петрова М.","photo_url":""},"reason":"banned","balance":"100.00","limit_left":"50.00"`,
		},
		{
			"a subsidised meal", `{"card":"` + uid(1) + `","kind":"subsidised","meal":"breakfast","total":"95.00"}`,
			`{"allow":true,"person":{"name":"Петрова М.","photo_url":""},"reason":""`,
		},
	} {
		if r := till.send("/api/v1/authorize", test.question); r.status != http.StatusOK || !strings.HasPrefix(r.body, test.want) {
			t.Errorf("%s: %d %s, want %s", test.name, r.status, r.body, test.want)
		}
	}
	if balance := s.balance(s.people[0]); balance != "100.00" {
		t.Errorf("asking has cost money: %s", balance)
	}
}

func TestAQuestionThatIsNoneIsRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	for _, test := range []struct{ name, body, path string }{
		{"nothing", ``, "body"},
		{"no card", `{"direction":"in"}`, "body.card"},
		{"a card that is a number", `{"card":5,"direction":"in"}`, "body.card"},
		{"neither door nor till", `{"card":"9A3F105C"}`, "body.direction"},
		{"a sale of nothing", `{"card":"9A3F105C","kind":"buffet","total":"0.00"}`, "body.total"},
		{"a kind that is none", `{"card":"9A3F105C","kind":"gift","total":"1.00"}`, "body.kind"},
		{"a hot meal without a meal", `{"card":"9A3F105C","kind":"hot","total":"1.00"}`, "body.meal"},
	} {
		r := s.door.send("/api/v1/authorize", test.body)
		isProblem(t, test.name, r, http.StatusUnprocessableEntity)
		if len(r.Errors) != 1 || r.Errors[0].Location != test.path {
			t.Errorf("%s: the path is %+v, want %s", test.name, r.Errors, test.path)
		}
	}
	isProblem(t, "a large question", s.door.send("/api/v1/authorize", strings.Repeat(" ", 70_000)), http.StatusRequestEntityTooLarge)
}

// lists asks for the changes since a cursor.
func (d device) lists(since string) (reader.Changes, reply) {
	d.t.Helper()
	request, err := http.NewRequestWithContext(d.t.Context(), http.MethodGet, d.url+"/api/v1/lists?since="+since, nil)
	must(d.t, err)
	request.Header.Set("Authorization", "Bearer "+d.key)
	r, err := ask(request)
	must(d.t, err)
	var changes reader.Changes
	must(d.t, json.Unmarshal([]byte(r.body), &changes))
	return changes, r
}

// listsOf asks from a cursor on until so many cards have been told. A change of a
// card is told when no transaction older than it is under way any more, in the
// whole cluster, which other tests share.
func (d device) listsOf(since string, cards int) (reader.Changes, reply) {
	d.t.Helper()
	var all reader.Changes
	for {
		changes, r := d.lists(since)
		since, all.Cursor, all.More = changes.Cursor, changes.Cursor, changes.More
		all.Cards, all.People = append(all.Cards, changes.Cards...), append(all.People, changes.People...)
		if len(all.Cards) >= cards || r.status != http.StatusOK {
			return all, r
		}
	}
}

// What a till was offline with reaches the books of its own school, although the
// child has gone to another one, with the card, before the till reports it.
func TestALateSaleIsOfTheSchoolThatMadeIt(t *testing.T) {
	t.Parallel()
	s, till := newTill(t)
	other, _ := s.school("o-2", "school", 0)
	s.exec(`UPDATE ledger.person SET organisation_id = $2 WHERE id = $1`, s.people[0], other)
	s.exec(`UPDATE access.card SET state = 'returned', ended_at = $2 WHERE person_id = $1`, s.people[0], morning.Add(time.Hour))
	s.card(other, uid(1), s.people[0], 0)
	s.now = morning.Add(2 * time.Hour)
	if r := till.upload(sale(1, 1, "hot", "lunch", "70.00", morning)); !slices.Equal(r.Acknowledged, []int64{1}) {
		t.Fatalf("answer %s", r.body)
	}
	if n := s.count(`SELECT count(*) FROM meal.sale WHERE organisation_id = $1 AND person_id = $2`, s.organisation, s.people[0]); n != 1 {
		t.Errorf("%d sales are of the till's school", n)
	}
}

func TestAListTellsWhatHasChanged(t *testing.T) {
	t.Parallel()
	s, till := newTill(t)
	s.school("o-2", "school", 1) // of another organisation
	for n := range 2 {
		// The desk of access keeps the history that lists are made of.
		s.exec(`INSERT INTO access.card_event (card_id, organisation_id, what, at, actor_kind, actor_id)
		        SELECT id, organisation_id, 'imported', $2, 'registry', 'import' FROM access.card WHERE person_id = $1`, s.people[n], s.now)
	}
	s.exec(`WITH ordered AS (
	            INSERT INTO meal.preorder (person_id, organisation_id, day, meal, price, ordered_by, ordered_at)
	            SELECT id, organisation_id, ($2::timestamptz AT TIME ZONE 'Europe/Moscow')::date, 'lunch', 4000, 1, $2 FROM ledger.person WHERE id = $1
	            RETURNING id, person_id)
	        SELECT ledger.hold_money(ARRAY[a.id], ARRAY[4000::bigint], ARRAY['preorder'], ARRAY[o.id::text])
	          FROM ordered o JOIN ledger.account a ON a.person_id = o.person_id`, s.people[0], s.now)
	limit := money.Amount(50_00)
	must(t, pgx.BeginFunc(t.Context(), s.pool, func(tx pgx.Tx) error {
		return meal.SetLimit(t.Context(), tx, s.people[1], &limit, 1, s.now)
	}))
	first, r := till.listsOf("", 2)
	if r.status != http.StatusOK || len(first.Cards) != 2 || len(first.People) != 2 {
		t.Fatalf("the first list: %d %s", r.status, r.body)
	}
	if c := first.Cards[0]; c.Card != uid(1) || c.Person != "o-1-p1" || c.Name != "Петрова М." || !c.Allow {
		t.Errorf("card %+v", c)
	}
	if p := first.People[0]; p.Person != "o-1-p1" || p.Balance != 60_00 || p.DebtFloor != -300_00 || p.LimitLeft != nil ||
		!slices.Equal(p.Ordered, []meal.HeldMeal{{Meal: "lunch", Held: 40_00}}) || first.People[1].Ordered != nil {
		t.Errorf("person %+v", p)
	}
	// A till that is offline for days decides by the whole limit on the next day,
	// and for whom the city pays; a door need not know that.
	for n, p := range first.People {
		if !slices.Equal(p.Subsidised, []string{"breakfast"}) || p.Served != nil || (p.Limit != nil) != (n == 1) {
			t.Errorf("person %+v", p)
		}
	}
	if p := first.People[1]; p.Limit != nil && *p.Limit != limit {
		t.Errorf("the limit is %s", *p.Limit)
	}
	if _, r := s.door.listsOf("", 2); strings.Contains(r.body, "subsidised") || !strings.Contains(r.body, "balance") {
		t.Errorf("a door is told %s", r.body)
	}
	again, _ := till.lists(first.Cursor)
	for again.More {
		again, _ = till.lists(again.Cursor)
	}
	if len(again.Cards) != 0 || len(again.People) != 0 || again.More {
		t.Errorf("nothing has changed and the list tells %+v", again)
	}
	till.upload(sale(1, 1, "buffet", "", "70.00", morning), sale(2, 1, "subsidised", "breakfast", "95.00", morning))
	s.exec(`UPDATE access.card SET state = 'blocked_lost', blocked_at = $2 WHERE person_id = $1`, s.people[1], s.now)
	s.exec(`INSERT INTO access.card_event (card_id, organisation_id, what, at, actor_kind, actor_id)
	        SELECT id, organisation_id, 'blocked_lost', $2, 'staff', 'staff-1' FROM access.card WHERE person_id = $1`, s.people[1], s.now)
	s.exec(`UPDATE ledger.person SET left_on = '2026-11-01' WHERE id = $1`, s.people[1])
	s.now = s.now.Add(time.Minute)
	next, r := till.listsOf(again.Cursor, 1)
	if len(next.Cards) != 1 || next.Cards[0].Card != uid(2) || next.Cards[0].Allow || next.Cards[0].Reason != "card_blocked" {
		t.Errorf("the block: %s", r.body)
	}
	slices.SortFunc(next.People, func(a, b reader.ListedPerson) int { return strings.Compare(a.Person, b.Person) })
	if len(next.People) != 2 || next.People[0].Balance != -10_00 || !slices.Equal(next.People[0].Served, []string{"breakfast"}) || next.People[1].Person != "o-1-p2" || !next.People[1].Gone {
		t.Errorf("the purchase and who has left: %s", r.body)
	}
	for _, wrong := range []string{"x", "1-1", ".", "1.2", "x.1-1", "%27"} {
		_, r := till.lists(wrong)
		isProblem(t, "the cursor "+wrong, r, http.StatusUnprocessableEntity)
	}
	// spec/door.md, Forgotten and lost cards: the age of a device's list is shown.
	for next.More {
		next, _ = till.lists(next.Cursor)
	}
	taken := s.now
	s.now = s.now.Add(time.Hour) // and never asks again
	s.intake.Close()             // writes down what it has heard
	devices, err := reader.ListDevices(t.Context(), s.pool)
	must(t, err)
	for _, d := range devices {
		if listed := d.ListedAt; d.ID == till.id != listed.Equal(taken) {
			t.Errorf("device %d took its list at %v", d.ID, listed)
		}
	}
}

func TestAReaderIsToldCardsAsItSeesThem(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	s.exec(`UPDATE access.card SET uid = '9A3F105C'`)
	s.exec(`INSERT INTO access.card_event (card_id, organisation_id, what, at, actor_kind, actor_id)
	        SELECT id, organisation_id, 'imported', now(), 'registry', 'import' FROM access.card`)
	s.exec(`UPDATE reader.device SET profile = 'reversed-w34'`)
	changes, r := s.door.listsOf("", 1)
	if len(changes.Cards) != 1 || changes.Cards[0].Card != "5C103F9A" {
		t.Fatalf("answer %s", r.body)
	}
	if r := s.door.upload(`{"seq":1,"type":"pass","card":"5C103F9A","direction":"in","at":"` + morning.Format(time.RFC3339) + `"}`); len(r.Acknowledged) != 1 {
		t.Errorf("its pass: %s", r.body)
	}
}

// I14, fault row 35: gaps and doubled numbers are shown, and gaps close by themselves.
func TestGapsInTheNumbersAreShown(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	for _, seq := range []int{10, 11, 15, 16, 30} {
		s.door.upload(pass(seq, 1, "in", morning.Add(time.Duration(seq)*time.Hour-100*time.Hour)))
	}
	gaps, err := reader.Gaps(t.Context(), s.pool, s.door.id, 100)
	must(t, err)
	if len(gaps) != 2 || gaps[0].First != 12 || gaps[0].Last != 14 || gaps[1].First != 17 || gaps[1].Last != 29 {
		t.Fatalf("gaps %+v", gaps)
	}
	if !gaps[0].Since.Equal(morning.Add(-89*time.Hour)) || !gaps[0].Until.Equal(morning.Add(-85*time.Hour)) {
		t.Errorf("the first lies between %v and %v", gaps[0].Since, gaps[0].Until)
	}
	sequences, err := reader.Sequences(t.Context(), s.pool)
	must(t, err)
	if len(sequences) != 1 || sequences[0].Device != s.door.id || sequences[0].Missing != 16 || sequences[0].Conflicts != 0 {
		t.Errorf("I14: %+v", sequences)
	}
	for seq := 12; seq < 30; seq++ {
		s.door.upload(pass(seq, 1, "in", morning.Add(time.Duration(seq)*time.Hour-100*time.Hour)))
	}
	gaps, err = reader.Gaps(t.Context(), s.pool, s.door.id, 100)
	must(t, err)
	if len(gaps) != 0 {
		t.Errorf("gaps %+v after everything has arrived", gaps)
	}
	s.door.upload(pass(12, 1, "out", morning))
	sequences, err = reader.Sequences(t.Context(), s.pool)
	must(t, err)
	if len(sequences) != 1 || sequences[0].Missing != 0 || sequences[0].Conflicts != 1 {
		t.Errorf("I14: %+v", sequences)
	}
}

func TestStaffLookAfterTheQuarantine(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	other := s.device("elsewhere", reader.Door, "o-1-b")
	body := `{"seq":1,"type":"pass","card":"FFFFFFFF","direction":"in","at":"` + morning.Format(time.RFC3339) + `"}`
	s.door.upload(body)
	other.upload(body)
	list, err := reader.Quarantine(t.Context(), s.pool, s.organisation, 10)
	must(t, err)
	if len(list) != 2 || list[1].Device != s.door.id || list[1].Code != reader.UnknownCard || string(list[1].Body) != body {
		t.Fatalf("quarantine %+v", list)
	}
	must(t, reader.SettleQuarantined(t.Context(), s.pool, s.organisation, list[1].Event, access.ByStaff("staff-1"), s.now))
	if err := reader.SettleQuarantined(t.Context(), s.pool, s.organisation, list[1].Event, access.ByStaff("staff-1"), s.now); err != reader.ErrNotQuarantined {
		t.Errorf("settling twice: %v", err)
	}
	list, err = reader.Quarantine(t.Context(), s.pool, s.organisation, 10)
	must(t, err)
	if len(list) != 1 || list[0].Device != other.id {
		t.Errorf("afterwards %+v", list)
	}
}
