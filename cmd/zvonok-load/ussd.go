package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"zvonok/cmd/zvonok/city"
	"zvonok/gateway/smpp/smpptest"
	"zvonok/ledger/pg"
)

// screenTimeout is after how long a phone gives up.
const screenTimeout = 30 * time.Second

// dialFigures is the verdict of a run of dials.
type dialFigures struct {
	People    int     `json:"people"`
	Passes    int64   `json:"passes_in_the_database"`
	Rate      int     `json:"begins_per_second"`
	Seconds   int     `json:"seconds"`
	Applied   float64 `json:"applied_seconds"`
	Answered  int     `json:"answered"`
	Failed    int64   `json:"not_answered"`
	Foreign   int64   `json:"not_the_dialling_phones_child"`
	AnswerP50 float64 `json:"answer_p50_ms"`
	AnswerP90 float64 `json:"answer_p90_ms"`
	AnswerP99 float64 `json:"answer_p99_ms"`
	AnswerMax float64 `json:"answer_max_ms"`
	CPU       float64 `json:"gateway_cpu_seconds"`
}

// dialer is a phone and the children whose names may be on its screen.
type dialer struct {
	number   string
	children []string
}

// dialAll lets phones dial the code at the rate, whatever the answers take, each phone once as long as there are
// others, and measures at the operator: from the begin being handed to the link to the screen.
func dialAll(ctx context.Context, o options, smsc *smpptest.SMSC, made *city.City, g *gateway) error {
	profile, err := smpptest.USSDProfileNamed("plain-its")
	if err != nil {
		return err
	}
	phones := dialers(made)
	passes, err := countPasses(ctx, g.ready.Database)
	if err != nil {
		return err
	}
	if !waitFor(screenTimeout, func() bool { return smsc.Binds() > 0 }) {
		return errors.New("the gateway does not bind")
	}
	n := o.USSD * o.Seconds
	waits := make([]time.Duration, n)
	var failed, foreign atomic.Int64
	applied := atRate(n, o.USSD, func(i int) {
		phone := phones[i%len(phones)]
		limited, cancel := context.WithTimeout(ctx, screenTimeout)
		defer cancel()
		dialled := time.Now()
		call, err := smsc.Dial(limited, profile, strings.TrimPrefix(phone.number, "+"), "*377*888#")
		var screen smpptest.Screen
		if err == nil {
			screen, err = call.Screen(limited)
		}
		waits[i] = time.Since(dialled)
		switch {
		case err != nil:
			waits[i] = -1
			if failed.Add(1) <= maxComplaints {
				fmt.Fprintln(os.Stderr, "not answered:", err)
			}
		case !phone.owns(screen.Text):
			if foreign.Add(1) <= maxComplaints {
				fmt.Fprintf(os.Stderr, "a parent of %v reads %q\n", phone.children, screen.Text)
			}
		}
	})
	f := dialFigures{
		People: o.People, Passes: passes, Rate: o.USSD, Seconds: o.Seconds, Applied: applied.Seconds(),
		Failed: failed.Load(), Foreign: foreign.Load(), CPU: g.cpu(),
	}
	answered := waits[:0]
	for _, wait := range waits {
		if wait >= 0 {
			answered = append(answered, wait)
		}
	}
	f.Answered = len(answered)
	f.AnswerP50, f.AnswerP90 = percentile(answered, 50), percentile(answered, 90)
	f.AnswerP99, f.AnswerMax = percentile(answered, 99), percentile(answered, 100)
	if err := f.print(o.JSON); err != nil {
		return err
	}
	if f.Failed > 0 || f.Foreign > 0 {
		return errors.New("not every phone got its own screen")
	}
	return nil
}

// atRate begins n calls, rate of them a second whatever they take, and answers how long all took.
func atRate(n, rate int, call func(i int)) time.Duration {
	var calls sync.WaitGroup
	begun := time.Now()
	for i := range n {
		if wait := time.Until(begun.Add(time.Duration(i) * time.Second / time.Duration(rate))); wait > 0 {
			time.Sleep(wait)
		}
		calls.Go(func() { call(i) })
	}
	calls.Wait()
	return time.Since(begun)
}

// print writes the figures for a reader or for a program.
func (f dialFigures) print(asJSON bool) error {
	if asJSON {
		encoder := json.NewEncoder(os.Stdout)
		encoder.SetIndent("", "  ")
		return encoder.Encode(f)
	}
	_, err := fmt.Printf("city of %d people, about %d passes; %d begins/s for %d s (applied in %.1f s)\n"+
		"answered %d, not answered %d, with another's child %d\n"+
		"answer at the operator p50 %.1f ms, p90 %.1f ms, p99 %.1f ms, max %.1f ms; gateway CPU %.1f s\n",
		f.People, f.Passes, f.Rate, f.Seconds, f.Applied, f.Answered, f.Failed, f.Foreign,
		f.AnswerP50, f.AnswerP90, f.AnswerP99, f.AnswerMax, f.CPU)
	return err
}

// owns says whether a screen names one of the children.
func (d dialer) owns(screen string) bool {
	for _, given := range d.children {
		if strings.Contains(screen, given) {
			return true
		}
	}
	return false
}

// dialers are the phones of parents who read Russian in Cyrillic, in an order of chance: whoever reads otherwise sees
// the name in other letters, and the name is how a foreign screen is noticed.
func dialers(made *city.City) []dialer {
	index := map[string]int{}
	var phones []dialer
	for _, p := range made.People {
		for _, guardian := range p.Guardians {
			if guardian.Role == "companion" || guardian.Language != "ru" || guardian.Translit {
				continue
			}
			i, ok := index[guardian.Phone]
			if !ok {
				i = len(phones)
				index[guardian.Phone] = i
				phones = append(phones, dialer{number: guardian.Phone})
			}
			phones[i].children = append(phones[i].children, p.Given)
		}
	}
	random := rand.New(rand.NewPCG(1, 1))
	random.Shuffle(len(phones), func(i, j int) { phones[i], phones[j] = phones[j], phones[i] })
	return phones
}

// countPasses asks the statistics: counting a year takes longer than the run.
func countPasses(ctx context.Context, url string) (int64, error) {
	pool, err := pg.Open(ctx, pg.Config{URL: url, AppName: "zvonok-load", Role: pg.AppRole})
	if err != nil {
		return 0, err
	}
	defer pool.Close()
	var n int64
	if err := pool.QueryRow(ctx, `
		SELECT coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = 'door.pass'::regclass`).Scan(&n); err != nil {
		return 0, fmt.Errorf("count the passes: %w", err)
	}
	return n, nil
}
