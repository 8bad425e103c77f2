// Zvonok-load proves how fast the whole chain is and that it loses nothing: it
// runs a gateway as a process of its own with a city in its database, plays the
// school doors over HTTP, the mobile operator over SMPP and the mail relay over
// SMTP, and compares what was acknowledged with what the phones got.
//
//	go run ./cmd/zvonok-load --people 400000 --rate 2000 --seconds 20
//	go run ./cmd/zvonok-load --people 400000 --rate 2000 --seconds 20 --kill
//	go run ./cmd/zvonok-load --people 400000 --rate 200 --seconds 200 --digests
//	go run ./cmd/zvonok-load --people 400000 --months 12 --ussd 500 --seconds 60
//	go run ./cmd/zvonok-load --people 400000 --authorize 500 --seconds 60
//
// With --kill the gateway is killed with signal 9 in the middle and started
// again; the doors repeat what was not acknowledged, as doors do. With --digests
// the day's digest of every recipient is made while the doors are busy. With --ussd
// parents dial *377*888# instead, and what is measured is when the screen comes
// to the operator. With --authorize doors ask whether to open. Everything listens on the loopback and ends by itself.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/alecthomas/kong"
	"github.com/jackc/pgx/v5/pgxpool"

	"zvonok/access/reader"
	"zvonok/cmd/zvonok/city"
	"zvonok/gateway/email/emailtest"
	"zvonok/gateway/smpp"
	"zvonok/gateway/smpp/smpptest"
	"zvonok/ledger/pg"
)

// receiptWindow is how many receipts of a bind may wait for our answer. Operators
// allow 10 to 50; with fewer, the receipts of such a load come minutes late.
const receiptWindow = 50

// samePassage is within which the same card in the same direction is one passage, and a second.
const samePassage = 61 * time.Second

// recentDays is how many days of passes a generated city has by itself.
const recentDays = 3

type options struct {
	Binary   string        `default:"bin/zvonok" help:"The program under load."`
	Dir      string        `default:"var/load" type:"path" help:"Where its data stays between runs."`
	People   int           `default:"400000" help:"People in the city."`
	Schools  int           `default:"700" help:"Organisations."`
	Rate     int           `default:"2000" help:"Single-event uploads per second."`
	Seconds  int           `default:"20" help:"For how long."`
	Clients  int           `default:"128" help:"Connections of the doors."`
	Kill     bool          `help:"Kill the gateway with signal 9 in the middle of each round and start it again."`
	Digests  bool          `help:"Let the day's digest of everybody be made meanwhile."`
	Rounds   int           `default:"1" help:"Rounds of the load, each with children of its own."`
	Patience time.Duration `default:"60s" help:"How long to wait for the last SMS."`
	USSD     int           `name:"ussd" help:"Begins of USSD dialogues per second, in place of uploads."`
	Ask      int           `name:"authorize" help:"Questions of doors whether to open per second, in place of uploads."`
	Months   int           `help:"Months of passes of everybody behind the city's last days."`
	JSON     bool          `name:"json" help:"Print the figures as JSON."`
}

func main() {
	var o options
	kong.Parse(&o, kong.Description("Load the whole chain: doors over HTTP, PostgreSQL, the operator over SMPP."))
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "zvonok-load:", err)
		os.Exit(1)
	}
}

// tap is one event on its way.
type tap struct {
	door   *door
	card   string
	phones []string // that expect one SMS each

	sentAt  time.Time // first attempt
	ackedAt atomic.Int64
	ackTook time.Duration // of the attempt that was acknowledged
	tries   int
}

type door struct {
	key string
	seq atomic.Int64
}

// heard is what a phone got.
type heard struct {
	count int
	first time.Time
}

// run brings up the parts, applies the load and prints the verdict.
func run(o options) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	ctx := context.Background()
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return err
	}
	binary, err := filepath.Abs(o.Binary)
	if err != nil {
		return err
	}

	var (
		mu    sync.Mutex
		inbox = map[string]heard{}
		total atomic.Int64
	)
	entries := entryWords()
	smsc, err := smpptest.Start(smpptest.Config{
		OperatorConfig: smpptest.OperatorConfig{
			Seed: 1, Keep: -1, Behaviour: smpptest.Behaviour{ReceiptDelay: time.Second}, Log: log,
			Session: smpp.SessionConfig{Window: receiptWindow},
			OnSMS: func(sms smpptest.SMS) {
				if o.Digests && !slices.ContainsFunc(entries, func(word string) bool { return strings.HasPrefix(sms.Text, word) }) {
					return // a digest
				}
				total.Add(1)
				now := time.Now()
				mu.Lock()
				h := inbox["+"+sms.To]
				if h.count == 0 {
					h.first = now
				}
				h.count++
				inbox["+"+sms.To] = h
				mu.Unlock()
			},
		},
		SystemID: "school", Password: "secret12",
	})
	if err != nil {
		return err
	}
	defer smsc.Close(ctx)

	relay, err := emailtest.Listen("127.0.0.1:0")
	if err != nil {
		return err
	}
	defer relay.Close()

	gateway := &gateway{binary: binary, dir: o.Dir, operator: smsc.Addr(), relay: relay.Addr()}
	if err := gateway.configure(); err != nil {
		return err
	}
	made, err := city.New(city.Spec{People: o.People, Schools: o.Schools, Seed: 1, Today: time.Now(), MenuFor: 14})
	if err != nil {
		return err
	}
	fresh := false
	marker := filepath.Join(o.Dir, fmt.Sprintf("city-%d-%d", o.People, o.Schools))
	if _, err := os.Stat(marker); errors.Is(err, os.ErrNotExist) {
		begun := time.Now()
		fmt.Fprintf(os.Stderr, "generating %d people\n", o.People)
		if err := gateway.command("generate", "--people", fmt.Sprint(o.People), "--schools", fmt.Sprint(o.Schools), "--seed", "1",
			"--history", fmt.Sprint(recentDays)); err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "generated in %s\n", time.Since(begun).Round(time.Second))
		if err := os.WriteFile(marker, nil, 0o644); err != nil {
			return err
		}
		fresh = true
	}
	if err := gateway.start(); err != nil {
		return err
	}
	defer gateway.stop()
	if o.Months > 0 {
		past := filepath.Join(o.Dir, fmt.Sprintf("past-%d", o.Months))
		if _, err := os.Stat(past); errors.Is(err, os.ErrNotExist) {
			if err := pastMonths(ctx, gateway.ready.Database, o.Months, time.Now()); err != nil {
				return err
			}
			if err := os.WriteFile(past, nil, 0o644); err != nil {
				return err
			}
			fresh = true
		}
	}
	if fresh {
		if err := settle(ctx, gateway.ready.Database); err != nil {
			return err
		}
	}
	if o.USSD > 0 {
		return dialAll(ctx, o, smsc, made, gateway)
	}
	pool, err := pg.Open(ctx, pg.Config{URL: gateway.ready.Database, AppName: "zvonok-load", Role: pg.AppRole})
	if err != nil {
		return err
	}
	defer pool.Close()
	if o.Ask > 0 {
		return askAll(ctx, o, made, pool, gateway)
	}
	taps, err := plan(ctx, o, made, pool)
	if err != nil {
		return err
	}
	if o.Digests {
		if err := prepareDigests(ctx, gateway.ready.Database); err != nil {
			return err
		}
		if err := awaitDigests(ctx, pool); err != nil {
			return err
		}
	}
	waitFor(30*time.Second, func() bool { return smsc.Binds() > 0 })

	begun := time.Now()
	for round := range o.Rounds {
		n := o.Rate * o.Seconds
		apply(o, taps[round*n:(round+1)*n], gateway)
	}
	applied := time.Since(begun)

	// Wait until every phone has what it is owed, or nothing more comes.
	expected := 0
	for _, t := range taps {
		if t.ackedAt.Load() != 0 {
			expected += len(t.phones)
		}
	}
	last, quietSince := int64(-1), time.Now()
	for {
		mu.Lock()
		got := len(inbox)
		mu.Unlock()
		if got >= expected {
			break
		}
		if n := total.Load(); n != last {
			last, quietSince = n, time.Now()
		}
		if time.Since(quietSince) > o.Patience {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	time.Sleep(2 * time.Second) // for whatever should not come
	var f figures
	if o.Digests {
		if err := digestFigures(ctx, pool, &f); err != nil {
			return err
		}
	}
	mu.Lock()
	defer mu.Unlock()
	return report(f, o, taps, inbox, applied, gateway)
}

// plan chooses children no two of whom share a phone, each at a door of its
// own school, so that every phone expects exactly one SMS.
func plan(ctx context.Context, o options, made *city.City, pool *pgxpool.Pool) ([]*tap, error) {
	// A child that taps again within a minute has not passed again (D8): wait
	// until the last run is that long ago.
	var since *time.Time
	if err := pool.QueryRow(ctx, `SELECT max(last_at) FROM door.presence`).Scan(&since); err != nil {
		return nil, fmt.Errorf("look for the last run: %w", err)
	}
	if since != nil {
		time.Sleep(time.Until(since.Add(samePassage)))
	}
	doors, err := addDoors(ctx, pool, made)
	if err != nil {
		return nil, err
	}
	shared := map[string]int{}
	for _, p := range made.People {
		for _, g := range p.Guardians {
			if g.Role != "companion" {
				shared[g.Phone]++
			}
		}
	}
	var taps []*tap
	wanted := o.Rate * o.Seconds * o.Rounds
	for _, p := range made.People {
		if len(taps) == wanted {
			break
		}
		if p.Kind != "pupil" || made.Organisations[p.Organisation].Kind == "kindergarten" {
			continue
		}
		t := &tap{door: doors[p.Organisation], card: p.Card}
		usable := true
		for _, g := range p.Guardians {
			usable = usable && shared[g.Phone] == 1 && g.Email == ""
			t.phones = append(t.phones, g.Phone)
		}
		if usable && len(t.phones) > 0 {
			taps = append(taps, t)
		}
	}
	if len(taps) < wanted {
		return nil, fmt.Errorf("the city has only %d suitable children for %d taps; make it larger", len(taps), wanted)
	}
	return taps, nil
}

// addDoors gives every organisation a door.
func addDoors(ctx context.Context, pool *pgxpool.Pool, made *city.City) ([]*door, error) {
	doors := make([]*door, len(made.Organisations))
	for i, organisation := range made.Organisations {
		_, key, err := reader.AddDevice(ctx, pool, reader.NewDevice{
			Name: "load", Kind: reader.Door, Building: organisation.Buildings[0],
		}, time.Now())
		if err != nil {
			return nil, err
		}
		doors[i] = &door{key: key.Reveal()}
	}
	return doors, nil
}

// apply sends the taps at the rate, whatever the answers take, and in a kill
// run repeats until each is acknowledged.
func apply(o options, taps []*tap, g *gateway) {
	client := &http.Client{
		Timeout:   10 * time.Second,
		Transport: &http.Transport{MaxIdleConnsPerHost: o.Clients, MaxConnsPerHost: o.Clients},
	}
	queue := make(chan *tap, len(taps))
	var senders sync.WaitGroup
	for range o.Clients {
		senders.Go(func() {
			for t := range queue {
				send(client, g, t, o.Kill)
			}
		})
	}
	begun := time.Now()
	killed := false
	var restarting sync.WaitGroup
	for i, t := range taps {
		due := begun.Add(time.Duration(i) * time.Second / time.Duration(o.Rate))
		if wait := time.Until(due); wait > 0 {
			time.Sleep(wait)
		}
		if o.Kill && !killed && i >= len(taps)/2 {
			killed = true
			restarting.Go(func() {
				fmt.Fprintln(os.Stderr, "kill -9")
				if err := g.killAndRestart(); err != nil {
					fmt.Fprintln(os.Stderr, "restart:", err)
				}
			})
		}
		t.sentAt = time.Now()
		queue <- t
	}
	close(queue)
	senders.Wait()
	restarting.Wait()
}

// send uploads one tap; a door keeps its event until it is acknowledged.
func send(client *http.Client, g *gateway, t *tap, persist bool) {
	seq := t.door.seq.Add(1)
	deadline := time.Now().Add(2 * time.Minute)
	for {
		t.tries++
		attempt := time.Now()
		if post(client, g, t, seq) {
			t.ackTook = time.Since(attempt)
			t.ackedAt.Store(time.Now().UnixNano())
			return
		}
		if !persist || time.Now().After(deadline) {
			return
		}
		time.Sleep(200 * time.Millisecond)
	}
}

func post(client *http.Client, g *gateway, t *tap, seq int64) bool {
	at := t.sentAt.Format(time.RFC3339Nano)
	body := fmt.Sprintf(`{"sent_at":%q,"events":[{"seq":%d,"type":"pass","card":%q,"direction":"in","at":%q}]}`,
		time.Now().Format(time.RFC3339Nano), seq, t.card, at)
	request, err := http.NewRequest(http.MethodPost, "http://"+g.address()+"/api/v1/events", bytes.NewReader([]byte(body)))
	if err != nil {
		return false
	}
	request.Header.Set("Authorization", "Bearer "+t.door.key)
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return false
	}
	defer response.Body.Close()
	var answer struct {
		Acknowledged []int64 `json:"acknowledged"`
	}
	data, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode == http.StatusOK && json.Unmarshal(data, &answer) == nil && len(answer.Acknowledged) == 1 {
		return true
	}
	if complaints.Add(1) <= maxComplaints {
		fmt.Fprintf(os.Stderr, "not acknowledged: %s %.200s\n", response.Status, data)
	}
	return false
}

// The first answers that are no acknowledgement are shown.
const maxComplaints = 5

var complaints atomic.Int64

// figures is the verdict of a run.
type figures struct {
	People       int     `json:"people"`
	Rate         int     `json:"rate"`
	Seconds      int     `json:"seconds"`
	Kills        int     `json:"kills"`
	Applied      float64 `json:"applied_seconds"`
	Acknowledged int     `json:"acknowledged"`
	Refused      int     `json:"not_acknowledged"`
	Expected     int     `json:"sms_expected"`
	Once         int     `json:"delivered_once"`
	Twice        int     `json:"delivered_more_than_once"`
	Lost         int     `json:"lost"`
	Unexpected   int     `json:"unexpected"`
	AckP50       float64 `json:"ack_p50_ms"`
	AckP99       float64 `json:"ack_p99_ms"`
	DelayP50     float64 `json:"tap_to_submit_p50_ms"`
	DelayP99     float64 `json:"tap_to_submit_p99_ms"`
	DelayMax     float64 `json:"tap_to_submit_max_ms"`
	CPU          float64 `json:"gateway_cpu_seconds"`

	// With --digests: recipients whose digest was composed and queued, and in which time.
	Digests       int     `json:"digests,omitempty"`
	DigestSeconds float64 `json:"digest_seconds,omitempty"`
}

func report(f figures, o options, taps []*tap, inbox map[string]heard, applied time.Duration, g *gateway) error {
	kills := 0
	if o.Kill {
		kills = o.Rounds
	}
	f.Kills, f.People, f.Rate, f.Seconds, f.Applied = kills, o.People, o.Rate, o.Seconds, applied.Seconds()
	var acks, delays []time.Duration
	owed := map[string]bool{}
	for _, t := range taps {
		if t.ackedAt.Load() == 0 {
			f.Refused++
			continue
		}
		f.Acknowledged++
		acks = append(acks, t.ackTook)
		for _, phone := range t.phones {
			f.Expected++
			owed[phone] = true
			h := inbox[phone]
			switch {
			case h.count == 0:
				f.Lost++
			case h.count == 1:
				f.Once++
			default:
				f.Twice++
			}
			if h.count > 0 {
				delays = append(delays, h.first.Sub(t.sentAt))
			}
		}
	}
	for phone := range inbox {
		if !owed[phone] {
			f.Unexpected++
		}
	}
	f.AckP50, f.AckP99 = percentile(acks, 50), percentile(acks, 99)
	f.DelayP50, f.DelayP99, f.DelayMax = percentile(delays, 50), percentile(delays, 99), percentile(delays, 100)
	f.CPU = g.cpu()
	if o.JSON {
		encoder := json.NewEncoder(os.Stdout)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(f); err != nil {
			return err
		}
	} else {
		fmt.Printf("city %d people, %d single-event uploads/s for %d s, %d rounds, %d kills (applied in %.1f s)\n",
			f.People, f.Rate, f.Seconds, o.Rounds, f.Kills, f.Applied)
		fmt.Printf("acknowledged %d, not acknowledged %d; answer p50 %.1f ms, p99 %.1f ms\n", f.Acknowledged, f.Refused, f.AckP50, f.AckP99)
		fmt.Printf("SMS owed %d: once %d, more than once %d, lost %d; unexpected %d\n", f.Expected, f.Once, f.Twice, f.Lost, f.Unexpected)
		fmt.Printf("tap to submit p50 %.0f ms, p99 %.0f ms, max %.0f ms\n", f.DelayP50, f.DelayP99, f.DelayMax)
		fmt.Printf("gateway process %.1f s of CPU\n", f.CPU)
		if o.Digests {
			fmt.Printf("digests composed and queued for %d recipients in %.0f s, %.0f a second\n",
				f.Digests, f.DigestSeconds, float64(f.Digests)/max(f.DigestSeconds, 1))
		}
	}
	if f.Lost > 0 || f.Unexpected > 0 || !o.Kill && f.Twice > 0 {
		return errors.New("the phones did not get exactly what was acknowledged")
	}
	return nil
}

func percentile(values []time.Duration, p int) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	i := min(len(values)*p/100, len(values)-1)
	return float64(values[i]) / float64(time.Millisecond)
}

func waitFor(patience time.Duration, condition func() bool) bool {
	deadline := time.Now().Add(patience)
	for !condition() {
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(20 * time.Millisecond)
	}
	return true
}
