package reader_test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"zvonok/access/door"
	"zvonok/access/reader"
	"zvonok/ledger"
	"zvonok/ledger/pg"
	"zvonok/ledger/pg/pgtest"
)

// poolOn opens a pool as the program does, on a database whose owner's URL is known.
func poolOn(t *testing.T, url string) *site {
	t.Helper()
	pool, err := pg.Open(t.Context(), pg.Config{URL: url, MaxConns: 12, AppName: "test", Role: pg.AppRole})
	must(t, err)
	t.Cleanup(pool.Close)
	return siteOn(t, pool, 20)
}

// owner runs a statement as the owner of the database.
func owner(t *testing.T, url, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	must(t, err)
	defer conn.Close(t.Context())
	_, err = conn.Exec(t.Context(), sql)
	must(t, err)
}

// An event that the database refuses for a reason we did not think of must hold
// up neither its neighbours nor its device.
func TestAPoisonedEventGoesToQuarantineAndHarmsNobody(t *testing.T) {
	t.Parallel()
	url := pgtest.NewURL(t)
	s := poolOn(t, url)
	owner(t, url, fmt.Sprintf(`
		CREATE FUNCTION public.poison() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			IF NEW.person_id = %d THEN RAISE EXCEPTION 'poison' USING ERRCODE = 'check_violation'; END IF;
			RETURN NEW;
		END $$;
		CREATE TRIGGER poison BEFORE INSERT ON door.pass FOR EACH ROW EXECUTE FUNCTION public.poison()`, s.people[6]))
	var all sync.WaitGroup
	for n := range 20 { // gathered with others
		all.Go(func() {
			r, err := s.door.post("/api/v1/events", []byte(document(morning, pass(n, n+1, "in", morning))))
			switch {
			case err != nil:
				t.Error(err)
			case n == 6 && r.code(6) != reader.Unprocessable:
				t.Errorf("the poisoned event is answered %s", r.body)
			case n != 6 && !slices.Equal(r.Acknowledged, []int64{int64(n)}):
				t.Errorf("event %d is answered %s", n, r.body)
			}
		})
	}
	all.Wait()
	var events []string // in one upload with others
	for n := range 20 {
		events = append(events, pass(100+n, n+1, "out", morning))
	}
	r := s.door.upload(events...)
	if len(r.Acknowledged) != 19 || r.code(106) != reader.Unprocessable {
		t.Errorf("the upload is answered %s", r.body)
	}
	if n := s.count(`SELECT count(*) FROM door.pass`); n != 38 {
		t.Errorf("%d passes, want 38", n)
	}
	if n := s.count(`SELECT count(*) FROM reader.quarantine WHERE code = 'unprocessable'`); n != 2 {
		t.Errorf("%d events in quarantine, want 2", n)
	}
	if again := s.door.upload(events[6]); again.code(106) != reader.Unprocessable {
		t.Errorf("its repeat is answered %s", again.body)
	}
}

// Fault row 4: 503 with Retry-After while the database is away, never a 2xx, and
// no help is needed when it comes back.
func TestWithoutTheDatabaseNothingIsAcknowledged(t *testing.T) {
	t.Parallel()
	cluster := pgtest.NewCluster(t)
	s := poolOn(t, cluster.URL())
	if r := s.door.upload(pass(1, 1, "in", morning)); r.status != http.StatusOK {
		t.Fatal(r.body)
	}
	cluster.Stop(t)
	r := s.door.upload(pass(2, 2, "in", morning))
	isProblem(t, "without the database", r, http.StatusServiceUnavailable)
	if r.header.Get("Retry-After") == "" {
		t.Error("it does not say when to come again")
	}
	isProblem(t, "a repeat without the database", s.door.upload(pass(1, 1, "in", morning)), http.StatusServiceUnavailable)
	cluster.Restart(t)
	awaken(t, s)
	if r := s.door.upload(pass(1, 1, "in", morning), pass(2, 2, "in", morning)); !slices.Equal(r.Acknowledged, []int64{1, 2}) {
		t.Errorf("afterwards: %d %s", r.status, r.body)
	}
	if n := s.count(`SELECT count(*) FROM door.pass`); n != 2 {
		t.Errorf("%d passes", n)
	}
}

// awaken waits until uploads are taken again: connections of the pool that broke
// are noticed by their use.
func awaken(t *testing.T, s *site) {
	t.Helper()
	for range 50 {
		if r := s.door.upload(); r.status == http.StatusOK {
			if s.pool.Ping(t.Context()) == nil {
				return
			}
		}
	}
	t.Fatal("the database is back and the intake does not see it")
}

// Row 45 of spec/reliability.md, at the till: the line breaks between the request
// and its answer, so the till does not know whether the sale was booked. It
// repeats it, is acknowledged, and the sale is booked once.
func TestASaleWhoseAnswerWasLostIsBookedOnceWhenItIsRepeated(t *testing.T) {
	t.Parallel()
	s, till := newTill(t)
	const sales = 20
	for seq := range sales {
		event := sale(seq, 1, "buffet", "", "1.00", morning.Add(time.Duration(seq)*time.Second))
		line, err := net.Dial("tcp", strings.TrimPrefix(till.url, "http://"))
		must(t, err)
		body := document(morning, event)
		_, err = fmt.Fprintf(line, "POST /api/v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s",
			till.key, len(body), body)
		must(t, err)
		if seq%2 == 0 { // once it was booked, or before
			_, err = line.Read(make([]byte, 1))
			must(t, err)
		}
		must(t, line.Close())
		if r := till.upload(event); !slices.Equal(r.Acknowledged, []int64{int64(seq)}) {
			t.Errorf("the repeat of sale %d: %d %s", seq, r.status, r.body)
		}
	}
	if balance := s.balance(s.people[0]); balance != "80.00" {
		t.Errorf("the balance is %s after %d sales of 1.00", balance, sales)
	}
	if n := s.count(`SELECT count(*) FROM river.river_job WHERE kind = 'meal_sold'`); n != sales {
		t.Errorf("%d jobs tell of %d sales", n, sales)
	}
}

// Row 36 of spec/reliability.md: the database's disk is full, when a row is
// written or when the transaction commits. A device is asked to come again,
// reads go on, nothing of the upload is there, and when there is room again the
// same upload is taken in, once, without anybody's help.
func TestAFullDiskIsAnswered503AndLosesNothing(t *testing.T) {
	t.Parallel()
	for _, when := range []string{"AFTER INSERT ON door.pass", "AFTER INSERT ON door.pass DEFERRABLE INITIALLY DEFERRED"} {
		for _, events := range []int{1, 60} { // one that is gathered, one that is a batch by itself
			t.Run(fmt.Sprintf("%s, %d events", when, events), func(t *testing.T) {
				t.Parallel()
				url := pgtest.NewURL(t)
				s := poolOn(t, url)
				owner(t, url, `
					CREATE TABLE public.full_disk ();
					GRANT SELECT ON public.full_disk TO PUBLIC;
					CREATE FUNCTION public.extend() RETURNS trigger LANGUAGE plpgsql AS $$
					BEGIN
						IF EXISTS (SELECT FROM public.full_disk) THEN
							RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full';
						END IF;
						RETURN NULL;
					END $$;
					CREATE CONSTRAINT TRIGGER extend `+when+` FOR EACH ROW EXECUTE FUNCTION public.extend()`)
				if r := s.door.upload(pass(1, 1, "in", morning)); !slices.Equal(r.Acknowledged, []int64{1}) {
					t.Fatalf("before: %s", r.body)
				}
				var batch []string
				var want []int64
				for n := range events {
					seq := 10 + n
					batch = append(batch, pass(seq, 1+n%20, "out", morning.Add(time.Duration(10+n)*time.Minute)))
					want = append(want, int64(seq))
				}
				s.now = s.now.Add(2 * time.Hour)
				owner(t, url, `INSERT INTO public.full_disk DEFAULT VALUES`)
				for range 3 {
					r := s.door.upload(batch...)
					if r.status != http.StatusServiceUnavailable || r.header.Get("Retry-After") == "" || len(r.Acknowledged) != 0 {
						t.Fatalf("with a full disk: %d %s", r.status, r.body)
					}
				}
				if r := s.door.send("/api/v1/authorize", `{"card":"`+uid(1)+`","direction":"in"}`); r.status != http.StatusOK {
					t.Errorf("a decision: %d %s", r.status, r.body)
				}
				if n := s.count(`SELECT (SELECT count(*) FROM reader.event) + (SELECT count(*) FROM door.pass)
					+ (SELECT count(*) FROM reader.quarantine)`); n != 2 {
					t.Errorf("%d rows are there, want those of the first event", n)
				}
				owner(t, url, `DELETE FROM public.full_disk`)
				for range 2 { // the second time as the first
					if r := s.door.upload(batch...); !slices.Equal(r.Acknowledged, want) {
						t.Errorf("with room again: %d %s", r.status, r.body)
					}
				}
				if n := s.count(`SELECT count(*) FROM door.pass`); n != 1+events {
					t.Errorf("%d passes, want %d", n, 1+events)
				}
			})
		}
	}
}

// Fault rows 2 and 5: PostgreSQL is killed again and again while devices upload
// and repeat what was not acknowledged. Nothing that was acknowledged is lost,
// nothing happens twice, each pass has its notification.
func TestNothingAcknowledgedIsLostWhenPostgreSQLIsKilled(t *testing.T) {
	t.Parallel()
	const devices, each, kills = 8, 60, 3
	cluster := pgtest.NewCluster(t)
	s := poolOn(t, cluster.URL())
	var (
		mu           sync.Mutex
		acknowledged = map[string]bool{}
		all          sync.WaitGroup
		progress     = make(chan struct{}, devices*each*100)
	)
	for n := range devices {
		device := s.device(fmt.Sprint("door ", n), reader.Door, "o-1-b")
		all.Go(func() {
			for seq := range each {
				body := []byte(document(morning, pass(seq, n+1, []string{"in", "out"}[seq%2],
					morning.Add(time.Duration(seq-each)*2*time.Minute))))
				for {
					r, err := device.post("/api/v1/events", body)
					progress <- struct{}{}
					if err != nil {
						t.Error(err)
						return
					}
					if r.status == http.StatusOK {
						mu.Lock()
						acknowledged[fmt.Sprint(device.id, " ", r.Acknowledged[0])] = true
						mu.Unlock()
						break
					}
					if r.status != http.StatusServiceUnavailable {
						t.Errorf("answer %d %s", r.status, r.body)
						return
					}
					time.Sleep(5 * time.Millisecond) // a device that waits before it repeats
				}
			}
		})
	}
	for range kills {
		for range 30 + rand.IntN(100) {
			<-progress
		}
		cluster.Kill9(t)
		cluster.Restart(t)
	}
	all.Wait()
	if len(acknowledged) != devices*each {
		t.Fatalf("%d of %d acknowledged", len(acknowledged), devices*each)
	}
	if n := s.count(`SELECT count(*) FROM door.pass`); n != devices*each {
		t.Errorf("%d passes for %d events", n, devices*each)
	}
	if n := s.count(`SELECT count(*) FROM reader.event e JOIN door.pass p ON p.event_id = e.event_id`); n != devices*each {
		t.Errorf("%d events have their pass", n)
	}
	if n := s.count(`SELECT count(DISTINCT told) FROM river.river_job, jsonb_array_elements(args -> 'event_ids') told`); n != devices*each {
		t.Errorf("%d passes have their notification", n)
	}
}

// One device may not take the places of all, and the queue has an end.
func TestADeviceWithTooManyUploadsUnderWayIsAskedToWait(t *testing.T) {
	t.Parallel()
	url := pgtest.NewURL(t)
	s := poolOn(t, url)
	other := s.device("door 2", reader.Door, "o-1-b")
	// The table is locked, so uploads stay under way.
	conn, err := pgx.Connect(t.Context(), url)
	must(t, err)
	defer conn.Close(t.Context())
	tx, err := conn.Begin(t.Context())
	must(t, err)
	_, err = tx.Exec(t.Context(), `LOCK TABLE reader.event IN ACCESS EXCLUSIVE MODE`)
	must(t, err)
	const places = 512
	var (
		all     sync.WaitGroup
		mu      sync.Mutex
		answers = map[int]int{}
		refused = make(chan reply, 2*places)
	)
	for n := range places + 20 {
		all.Go(func() {
			r, err := s.door.post("/api/v1/events", []byte(document(morning, pass(n, n%20+1, "in", morning))))
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			answers[r.status]++
			mu.Unlock()
			if r.status != http.StatusOK {
				refused <- r
			}
		})
	}
	for range 20 {
		r := <-refused
		isProblem(t, "too many", r, http.StatusTooManyRequests)
		if r.header.Get("Retry-After") == "" {
			t.Error("it does not say when to come again")
		}
	}
	done := make(chan reply)
	go func() {
		r, err := other.post("/api/v1/events", []byte(document(morning, pass(1, 1, "out", morning))))
		if err != nil {
			t.Error(err)
		}
		done <- r
	}()
	must(t, tx.Rollback(t.Context()))
	all.Wait()
	if answers[http.StatusOK] != places || answers[http.StatusTooManyRequests] != 20 {
		t.Errorf("answers %v", answers)
	}
	if r := <-done; r.status != http.StatusOK {
		t.Errorf("the other device is answered %d %s", r.status, r.body)
	}
}

// Issue 6, evidence: a week of a school, shuffled, repeated and split into
// uploads at random, always ends in the state of the week in order (fault row 34).
func TestAnyShuffleRepetitionAndSplitOfAWeekEndsInTheSameState(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	schools := 0
	rapid.Check(t, func(r *rapid.T) {
		const people = 3
		week := weekOf(r, people)
		states := make([]string, 2)
		for k := range states {
			schools++
			code := fmt.Sprint("s-", schools)
			_, pupils := s.school(code, "school", people)
			gate := s.device("gate", reader.Door, code+"-b")
			sent := slices.Clone(week)
			if k == 1 {
				sent = nil
				for _, event := range week {
					for range rapid.IntRange(1, 3).Draw(r, "times") {
						sent = append(sent, event)
					}
				}
				sent = rapid.Permutation(sent).Draw(r, "order")
			}
			for len(sent) > 0 {
				n := len(sent)
				if k == 1 {
					n = rapid.IntRange(1, len(sent)).Draw(r, "upload")
				}
				if answer := gate.uploadAt(s.now, sent[:n]...); answer.status != http.StatusOK || len(answer.Rejected) > 0 {
					t.Fatalf("answer %d %s", answer.status, answer.body)
				}
				sent = sent[n:]
			}
			states[k] = s.state(pupils)
		}
		if states[0] != states[1] {
			r.Fatalf("in order:\n%s\nshuffled:\n%s", states[0], states[1])
		}
	})
}

func weekOf(r *rapid.T, people int) []string {
	var events []string
	for person := range people {
		for day := range rapid.IntRange(0, 3).Draw(r, "days") {
			at := morning.AddDate(0, 0, day-7)
			for range rapid.IntRange(0, 4).Draw(r, "taps") {
				at = at.Add(time.Duration(rapid.SampledFrom([]int{0, 1, 5, 30, 60, 61, 3600, 36000}).Draw(r, "gap")) * time.Second)
				direction := rapid.SampledFrom([]string{"in", "out"}).Draw(r, "direction")
				events = append(events, pass(len(events), person+1, direction, at))
			}
		}
	}
	return events
}

// state writes down what is stored of people, without the event ids.
func (s *site) state(people []ledger.PersonID) string {
	s.t.Helper()
	visits, err := door.LastVisits(s.t.Context(), s.pool, people, morning)
	must(s.t, err)
	var b strings.Builder
	for i, person := range people {
		history, err := door.History(s.t.Context(), s.pool, person, morning.AddDate(0, 0, -30), morning.AddDate(0, 0, 30))
		must(s.t, err)
		var lines []string
		for _, p := range history {
			lines = append(lines, fmt.Sprintf("%d %s %s merged %v suspected %v\n", i, p.At.UTC().Format(time.DateTime),
				p.Direction, p.Merged, p.Suspected))
		}
		slices.Sort(lines) // passes of the same moment
		b.WriteString(strings.Join(lines, ""))
		v := visits[person]
		fmt.Fprintf(&b, "%d last %v %v on %v in %v out %v\n", i, v.LastAt.UTC(), v.LastDirection, v.Day, v.FirstIn.UTC(), v.LastOut.UTC())
	}
	return b.String()
}
