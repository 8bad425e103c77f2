package ledger_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"golang.org/x/sync/errgroup"

	"zvonok/ledger"
	"zvonok/ledger/money"
	"zvonok/ledger/pg"
)

// The benchmark of the book.
const (
	benchWallets = 300_000
	benchPayees  = 50
	benchClients = 8 // of pgbench, and of single postings
	benchUploads = 2 // batches at a time, one a core: more only take turns
	// benchBurst is how long each of the things compared runs in a round, and
	// benchRounds how often: their order alternates, the median counts. Sales
	// spread and sales to one provider take turns within a burst, so that a
	// moment when the machine is busy falls on both.
	benchBurst  = 2 * time.Second
	benchTurns  = 4
	benchRounds = 5
)

// bench is a private cluster with the settings of production, a city of wallets
// and, beside it, a database of pgbench.
type bench struct {
	testing.TB
	pool    *pgxpool.Pool
	book    *ledger.Book
	wallets []ledger.AccountID
	buffets []ledger.AccountID
	serial  atomic.Int64
	pgbench string // the program; empty when the machine has none
	tpcb    string // the URL of its database
}

func newBench(b *testing.B) *bench {
	b.Helper()
	ctx := b.Context()
	dir, err := os.MkdirTemp("", "zvonok-bench-")
	check(b, err)
	b.Cleanup(func() { check(b, os.RemoveAll(dir)) })
	check(b, os.Chmod(dir, 0o711)) // PostgreSQL may run as another account
	cluster, err := pg.StartCluster(ctx, pg.ClusterConfig{DataDir: filepath.Join(dir, "data"), Log: slog.New(slog.DiscardHandler)})
	check(b, err)
	b.Cleanup(func() { check(b, cluster.Stop(context.WithoutCancel(ctx))) })
	_, err = pg.Migrate(ctx, cluster.URL())
	check(b, err)
	pool, err := pg.Open(ctx, pg.Config{URL: cluster.URL(), MaxConns: benchClients + 2, AppName: "bench", Role: pg.AppRole})
	check(b, err)
	b.Cleanup(pool.Close)
	jobs, err := river.NewClient(riverpgxv5.New(pool), &river.Config{Schema: pg.RiverSchema, Logger: slog.New(slog.DiscardHandler)})
	check(b, err)
	x := &bench{TB: b, pool: pool, book: ledger.NewBook(jobs)}
	x.openWallets()
	x.preparePgbench(cluster.URL())
	return x
}

func check(b testing.TB, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// openWallets makes the city: wallets with 10,000 roubles each and the usual threshold.
func (x *bench) openWallets() {
	x.Helper()
	ctx := x.Context()
	check(x, pgx.BeginFunc(ctx, x.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SET LOCAL statement_timeout = 0`); err != nil {
			return err
		}
		for _, statement := range []string{
			`INSERT INTO ledger.organisation (code, kind, name, short_name, time_zone) VALUES ('s', 'school', 'S', 'S', 'Europe/Moscow')`,
			fmt.Sprintf(`INSERT INTO ledger.person (code, organisation_id, kind, family_name, given_name)
			             SELECT 'p' || i, o.id, 'pupil', 'Ivanov', 'Ivan' FROM generate_series(1, %d) AS i, ledger.organisation o`, benchWallets),
		} {
			if _, err := tx.Exec(ctx, statement); err != nil {
				return err
			}
		}
		openings := make([]ledger.WalletOpening, benchWallets)
		for i := range openings {
			openings[i] = ledger.WalletOpening{Person: ledger.PersonID(i + 1), Number: fmt.Sprintf("%09d", i)}
		}
		began := time.Now()
		if err := ledger.OpenWallets(ctx, tx, openings); err != nil {
			return err
		}
		x.Logf("%d wallets opened in %s", benchWallets, time.Since(began).Round(time.Millisecond))
		names := []ledger.SystemAccount{{Kind: ledger.Bank, Owner: "mkb"}}
		for i := range benchPayees {
			names = append(names, ledger.SystemAccount{Kind: ledger.Buffet, Owner: strconv.Itoa(i)})
		}
		ids, err := ledger.SystemAccounts(ctx, tx, names...)
		if err != nil {
			return err
		}
		x.buffets = ids[1:]
		rows, err := tx.Query(ctx, `SELECT account_id FROM ledger.balance ORDER BY account_id`)
		if err != nil {
			return err
		}
		x.wallets, err = pgx.CollectRows(rows, pgx.RowTo[ledger.AccountID])
		if err != nil {
			return err
		}
		thresholds := make([]ledger.Threshold, benchWallets)
		for i := range thresholds {
			thresholds[i] = ledger.Threshold{Person: ledger.PersonID(i + 1), Owner: 1, Amount: 150 * money.Rouble}
		}
		if err := ledger.LoadThresholds(ctx, tx, thresholds); err != nil {
			return err
		}
		for chunk := range slices.Chunk(x.wallets, 20_000) {
			entries := make([]ledger.Entry, len(chunk))
			for i, wallet := range chunk {
				entries[i] = x.entry(ledger.TopUp, ids[0], wallet, 10_000*money.Rouble)
			}
			if _, err := ledger.NewBook(nil).Post(ctx, tx, entries); err != nil {
				return err
			}
		}
		return nil
	}))
}

func (x *bench) preparePgbench(url string) {
	x.Helper()
	ctx := x.Context()
	conn, err := pgx.Connect(ctx, url)
	check(x, err)
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, `VACUUM ANALYZE`)
	check(x, err)
	var folder string
	check(x, conn.QueryRow(ctx, `SELECT setting FROM pg_config WHERE name = 'BINDIR'`).Scan(&folder))
	program := filepath.Join(folder, "pgbench")
	if _, err := exec.LookPath(program); err != nil {
		x.Logf("no pgbench beside the server: rates without ratios")
		return
	}
	_, err = conn.Exec(ctx, `CREATE DATABASE tpcb`)
	check(x, err)
	x.pgbench, x.tpcb = program, regexp.MustCompile(`/[^/?]+\?`).ReplaceAllString(url, "/tpcb?")
	if out, err := exec.CommandContext(ctx, program, "-i", "-q", "-s", "10", x.tpcb).CombinedOutput(); err != nil {
		x.Fatalf("prepare pgbench: %v: %s", err, out)
	}
	_, err = conn.Exec(ctx, `CHECKPOINT`)
	check(x, err)
}

// The protocols of pgbench: the one it uses when nothing is said, which parses
// and plans each statement anew, and prepared statements.
const (
	plain    = "simple"
	prepared = "prepared"
)

// tpcbRate is the transactions per second of one burst of pgbench; 0 without
// pgbench, or when the machine was too busy for a single one.
func (x *bench) tpcbRate(protocol string) float64 {
	x.Helper()
	if x.pgbench == "" {
		return 0
	}
	out, err := exec.CommandContext(x.Context(), x.pgbench, "-n", "-M", protocol, "-c", strconv.Itoa(benchClients), "-j", "2",
		"-T", strconv.Itoa(int(benchBurst.Seconds())), x.tpcb).CombinedOutput()
	if err != nil {
		x.Fatalf("run pgbench: %v: %s", err, out)
	}
	found := regexp.MustCompile(`tps = ([0-9.]+)`).FindSubmatch(out)
	if found == nil {
		return 0
	}
	rate, err := strconv.ParseFloat(string(found[1]), 64)
	check(x, err)
	return rate
}

func (x *bench) entry(kind ledger.Kind, from, to ledger.AccountID, amount money.Amount) ledger.Entry {
	serial := x.serial.Add(1)
	return ledger.Entry{
		Event: ledger.EventID(serial), Kind: kind, Debit: from, Credit: to, Amount: amount,
		Source: "till/" + strconv.FormatInt(serial%500, 10), ExternalID: strconv.FormatInt(serial, 10), OccurredAt: today,
	}
}

// sales are size sales to payees providers, of some of wallets picked at random.
func (x *bench) sales(random *rand.Rand, wallets []ledger.AccountID, size, payees int) []ledger.Entry {
	entries := make([]ledger.Entry, size)
	for i := range entries {
		entries[i] = x.entry(ledger.BuffetSale, wallets[random.IntN(len(wallets))],
			x.buffets[random.IntN(payees)], money.Amount(1+random.IntN(100_00)))
	}
	return entries
}

// post books entries in a transaction of their own.
func (x *bench) post(ctx context.Context, entries []ledger.Entry) (verdicts []ledger.Verdict, err error) {
	err = pg.InTx(ctx, x.pool, func(tx pgx.Tx) (err error) {
		verdicts, err = x.book.Post(ctx, tx, entries)
		return err
	})
	return verdicts, err
}

// rate is the postings per second of clients that for some time each make one
// call after the other, of size sales each. Each has children of its own, as
// the tills of a school have.
func (x *bench) rate(
	during time.Duration, clients, size, payees int,
	call func(context.Context, []ledger.Entry) ([]ledger.Verdict, error),
) float64 {
	x.Helper()
	var posted atomic.Int64
	began := time.Now()
	group, ctx := errgroup.WithContext(x.Context())
	for client := range clients {
		group.Go(func() error {
			random := rand.New(rand.NewPCG(uint64(client), uint64(x.serial.Load())))
			own := len(x.wallets) / clients
			wallets := x.wallets[client*own : (client+1)*own]
			for time.Since(began) < during {
				verdicts, err := call(ctx, x.sales(random, wallets, size, payees))
				if err != nil {
					return err
				}
				for _, v := range verdicts {
					if v.Code != ledger.CodePosted {
						return fmt.Errorf("a sale is %s", v.Code)
					}
				}
				posted.Add(int64(size))
			}
			return nil
		})
	}
	check(x, group.Wait())
	return float64(posted.Load()) / time.Since(began).Seconds()
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// BenchmarkPost measures postings per second beside pgbench's TPC-B on the same
// cluster in the same minute (T20): pgbench runs before and after each round, and
// the ratio is to the mean of the two: x-pgbench to a plain run of it, x-prepared
// to one with prepared statements. one/spread compares sales that all go to one
// provider with sales spread over fifty.
//
// single is one posting a call, as tills and banks make them; calls that wait at
// the same time share a transaction. There are as many callers as pgbench has
// clients, or a hundred. alone is one posting a transaction, which nothing here
// does for long.
func BenchmarkPost(b *testing.B) {
	x := newBench(b)
	x.rate(benchBurst, benchClients, 500, benchPayees, x.post) // plans and caches
	x.tpcbRate(plain)
	// As payments are gathered: the calls that come while two batches are under
	// way are the next.
	gatherer := pg.NewGatherer(pg.GathererConfig{Max: 64, Parallel: 2}, x.post)
	defer gatherer.Close()
	gathered := func(ctx context.Context, entries []ledger.Entry) ([]ledger.Verdict, error) {
		verdict, err := gatherer.Do(ctx, entries[0])
		return []ledger.Verdict{verdict}, err
	}
	for _, row := range []struct {
		name          string
		clients, size int
		call          func(context.Context, []ledger.Entry) ([]ledger.Verdict, error)
	}{
		{"single", benchClients, 1, gathered},
		{"single=100", 100, 1, gathered},
		{"alone", benchClients, 1, x.post},
		{"batch=50", benchUploads, 50, x.post},
		{"batch=500", benchUploads, 500, x.post},
	} {
		b.Run(row.name, func(b *testing.B) {
			for b.Loop() {
				var rates, shared []float64
				ratios := map[string][]float64{}
				tpcb := func() map[string]float64 {
					return map[string]float64{plain: x.tpcbRate(plain), prepared: x.tpcbRate(prepared)}
				}
				before := tpcb()
				for range benchRounds {
					spread, one := 0.0, 0.0
					for turn := range 2 * benchTurns {
						turned := benchBurst / benchTurns
						if turn%4 == 0 || turn%4 == 3 { // spread, one, one, spread
							spread += x.rate(turned, row.clients, row.size, benchPayees, row.call) / benchTurns
						} else {
							one += x.rate(turned, row.clients, row.size, 1, row.call) / benchTurns
						}
					}
					rates, shared = append(rates, spread), append(shared, one/spread)
					after := tpcb()
					for protocol, first := range before {
						if last := after[protocol]; first > 0 && last > 0 {
							ratios[protocol] = append(ratios[protocol], spread*2/(first+last))
						}
					}
					before = after
				}
				b.ReportMetric(median(rates), "postings/s")
				b.ReportMetric(median(shared), "one/spread")
				if len(ratios) == 2 {
					b.ReportMetric(median(ratios[plain]), "x-pgbench")
					b.ReportMetric(median(ratios[prepared]), "x-prepared")
				}
			}
			b.ReportMetric(0, "ns/op") // a round has no meaning as an operation
		})
	}
}

// BenchmarkCloseADayOf500000 closes and seals a day of half a million postings:
// the top-ups of the city's wallets and 200,000 sales.
func BenchmarkCloseADayOf500000(b *testing.B) {
	x := newBench(b)
	random := rand.New(rand.NewPCG(1, 2))
	for range 40 {
		_, err := x.post(b.Context(), x.sales(random, x.wallets, 5000, benchPayees))
		check(b, err)
	}
	b.ResetTimer()
	for b.Loop() {
		days, err := ledger.CloseDays(b.Context(), x.pool, today, "bench")
		check(b, err)
		if len(days) != 1 || days[0].Postings != 500_000 {
			b.Fatalf("closed %+v", days)
		}
		b.StopTimer()
		check(b, pgx.BeginFunc(b.Context(), x.pool, func(tx pgx.Tx) error {
			return ledger.ReopenDay(b.Context(), tx, today, "bench", "once more")
		}))
		b.StartTimer()
	}
}
